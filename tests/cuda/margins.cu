// The formulas of heads and optimizers are plain functors, so that one text serves host and device.
// This file only has to compile: it instantiates each of them in device code.
#include "heads/combined.h"
#include "heads/softmax.h"
#include "plugins/optimizers/adamw.h"
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

__global__ void update(ftrain::Sgd sgd, ftrain::AdamW adamw, float* weights, float* velocities,
                       float* squares, const float* gradients, int count) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const ftrain::UpdateScalars scalars{.rate = 0.1, .decay = 5e-4, .coefficient = 1, .step = 3};
  sgd.prepare<float>(scalars)(weights[i], velocities[i], gradients[i]);
  adamw.prepare<float>(scalars)(weights[i], velocities[i], squares[i], gradients[i]);
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

void launch_update(float* weights, float* velocities, float* squares, const float* gradients,
                   int count) {
  update<<<1, count>>>(ftrain::Sgd{}, ftrain::AdamW(0.9, 0.999, 1e-8), weights, velocities, squares,
                       gradients, count);
}
