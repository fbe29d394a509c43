// Stacks that take turns on one thread of the host.
#pragma once

#include <boost/context/fiber.hpp>

#include <cstddef>
#include <functional>

namespace standin {

// A stack of its own on which `work` is done again and again.
//
// resume() begins it, or goes on with it, until it calls pause() or is done. A fiber that is never
// to go on is given up by forget(): what lies on its stack is not unwound.
class Fiber {
 public:
  explicit Fiber(std::function<void()> work);
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;
  ~Fiber();

  void resume();
  // From within: back to who resumed it.
  void pause();
  bool done() const { return done_; }
  void forget();

 private:
  void prepare();
  void leave();
  void arrive();  // on the fiber's own stack

  std::function<void()> work_;
  std::byte* memory_ = nullptr;
  boost::context::fiber inside_, outside_;
  bool done_ = true;
  void* inside_fake_ = nullptr;  // AddressSanitizer's
  const void* outside_stack_ = nullptr;
  std::size_t outside_size_ = 0;
};

}  // namespace standin
