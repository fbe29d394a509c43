// The formulas of heads and optimizers are plain functors, so that one text serves host and device.
// This file only has to compile: it instantiates each of them in device code.
#include "heads/combined.h"
#include "heads/softmax.h"
#include "plugins/optimizers/sgd.h"

namespace {

template <class Functor, class T>
__global__ void logits(Functor formula, const ftrain::MarginRow<T>* rows, T* cosines, T* slopes,
                       int count) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const ftrain::Dual<T> own = formula.target(rows[i].target, rows[i]);
  const ftrain::Dual<T> other = formula.other(cosines[i], rows[i]);
  cosines[i] = own.value + other.value;
  slopes[i] = own.slope * other.slope;
}

__global__ void update(ftrain::Sgd formula, float* weights, float* velocities,
                       const float* gradients, int count) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < count) formula.step(weights[i], velocities[i], gradients[i], 0.1f, 5e-4f, 1.0f);
}

template <class Functor, class T>
void launch(const ftrain::MarginRow<T>* rows, T* cosines, T* slopes, int count) {
  logits<<<1, count>>>(Functor{}, rows, cosines, slopes, count);
}

}  // namespace

template <class T>
void launch_all(const ftrain::MarginRow<T>* rows, T* cosines, T* slopes, int count) {
  launch<ftrain::Combined>(rows, cosines, slopes, count);
  launch<ftrain::Softmax<true>>(rows, cosines, slopes, count);
  launch<ftrain::Softmax<false>>(rows, cosines, slopes, count);
}
template void launch_all(const ftrain::MarginRow<float>*, float*, float*, int);
template void launch_all(const ftrain::MarginRow<double>*, double*, double*, int);

void launch_update(float* weights, float* velocities, const float* gradients, int count) {
  update<<<1, count>>>(ftrain::Sgd{}, weights, velocities, gradients, count);
}
