// Enough of CUDA C++ to run a kernel on the CPU, one block after the other. The threads of a block take turns: each runs until a
// barrier or its end, so whatever they read of each other without a barrier in between depends on whose turn it was.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#define __global__
#define __device__
#define __shared__
#define __forceinline__ inline
#define __launch_bounds__(threads)

struct Place {
  unsigned x, y;
};
static Place threadIdx, blockIdx, blockDim;
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
struct alignas(8) ushort4 {
  uint16_t x, y, z, w;
};

template <class T>
inline T __ldg(const T* address) {
  return *address;
}
inline int min(int a, int b) { return a < b ? a : b; }
inline float __int_as_float(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

constexpr size_t shared_floats = 48 << 8, guard_floats = 1024;
alignas(128) float shared[shared_floats + guard_floats];

namespace on_cpu {

constexpr size_t stack_bytes = 64 << 10;

struct Thread {
  ucontext_t context;
  std::unique_ptr<char[]> stack{new char[stack_bytes]};
  bool done = false;
};
static std::vector<Thread> threads;
static ucontext_t turns;
static size_t running;
static const std::function<void()>* body;

inline void run() {
  (*body)();
  threads[running].done = true;
}

// What is wrong with the kernel, or null.
inline const char* block(const std::function<void()>& kernel, size_t shared_bytes, bool backward) {
  const size_t count = size_t{blockDim.x} * blockDim.y;
  if (shared_bytes > shared_floats * 4) return "more shared memory than there is";
  std::memset(shared, 0xff, sizeof shared);
  if (threads.size() < count) threads.resize(count);
  body = &kernel;
  for (size_t t = 0; t < count; ++t) {
    threads[t].done = false;
    getcontext(&threads[t].context);
    threads[t].context.uc_stack.ss_sp = threads[t].stack.get();
    threads[t].context.uc_stack.ss_size = stack_bytes;
    threads[t].context.uc_link = &turns;
    makecontext(&threads[t].context, run, 0);
  }
  for (size_t done = 0; done < count;) {
    done = 0;
    for (size_t turn = 0; turn < count; ++turn) {
      running = backward ? count - 1 - turn : turn;
      if (threads[running].done) return "a barrier that not all threads come to";
      threadIdx = {static_cast<unsigned>(running % blockDim.x), static_cast<unsigned>(running / blockDim.x)};
      swapcontext(&turns, &threads[running].context);
      done += threads[running].done;
    }
  }
  for (const auto* byte = reinterpret_cast<unsigned char*>(shared) + shared_bytes;
       byte != reinterpret_cast<unsigned char*>(shared) + sizeof shared; ++byte)
    if (*byte != 0xff) return "a write outside the shared memory";
  return nullptr;
}

inline const char* grid(Place blocks, Place block_threads, size_t shared_bytes, bool backward,
                        const std::function<void()>& kernel) {
  blockDim = block_threads;
  for (blockIdx.y = 0; blockIdx.y < blocks.y; ++blockIdx.y)
    for (blockIdx.x = 0; blockIdx.x < blocks.x; ++blockIdx.x)
      if (const char* fault = block(kernel, shared_bytes, backward)) return fault;
  return nullptr;
}

}  // namespace on_cpu

inline void __syncthreads() { swapcontext(&on_cpu::threads[on_cpu::running].context, &on_cpu::turns); }
