// Vectors that begin on a cache line, so that no vector register's load takes two.
#pragma once

#include <cstddef>
#include <new>
#include <vector>

namespace penstock {

template <typename T>
struct Aligned {
  using value_type = T;
  static constexpr std::align_val_t line{64};
  Aligned() = default;
  template <typename U>
  Aligned(const Aligned<U>&) {}
  T* allocate(size_t count) { return static_cast<T*>(::operator new(count * sizeof(T), line)); }
  void deallocate(T* p, size_t) { ::operator delete(p, line); }
  bool operator==(const Aligned&) const { return true; }
  bool operator!=(const Aligned&) const { return false; }
};

template <typename T>
using AlignedVector = std::vector<T, Aligned<T>>;

}  // namespace penstock
