// A few numbers at a time, for the instruction set that the including file is compiled for. Bit c of a mask is row c.
#pragma once

#include <cstdint>

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

namespace penstock::PENSTOCK_ISA {
namespace {

#if defined(__AVX512F__)

struct Floats {
  using Number = float;
  using Vector = __m512;
  using Mask = __mmask16;
  static constexpr int width = 16;
  static Vector load(const float* p) { return _mm512_loadu_ps(p); }
  static void store(float* p, Vector v) { _mm512_storeu_ps(p, v); }
  static Vector all(float v) { return _mm512_set1_ps(v); }
  static Mask mask(uint64_t rows, int first) { return static_cast<Mask>(rows >> first); }
  static Vector choose(Mask m, Vector yes, Vector no) { return _mm512_mask_blend_ps(m, no, yes); }
  static Vector only(Mask m, Vector v) { return _mm512_maskz_mov_ps(m, v); }
  static Vector add(Vector a, Vector b) { return _mm512_add_ps(a, b); }
  static Vector mul(Vector a, Vector b) { return _mm512_mul_ps(a, b); }
};

struct Doubles {
  using Number = double;
  using Vector = __m512d;
  using Mask = __mmask8;
  static constexpr int width = 8;
  static Vector load(const double* p) { return _mm512_loadu_pd(p); }
  static void store(double* p, Vector v) { _mm512_storeu_pd(p, v); }
  static Vector all(double v) { return _mm512_set1_pd(v); }
  static Mask mask(uint64_t rows, int first) { return static_cast<Mask>(rows >> first); }
  static Vector choose(Mask m, Vector yes, Vector no) { return _mm512_mask_blend_pd(m, no, yes); }
  static Vector only(Mask m, Vector v) { return _mm512_maskz_mov_pd(m, v); }
  static Vector add(Vector a, Vector b) { return _mm512_add_pd(a, b); }
  static Vector mul(Vector a, Vector b) { return _mm512_mul_pd(a, b); }
};

#elif defined(__AVX2__)

struct Floats {
  using Number = float;
  using Vector = __m256;
  using Mask = __m256;
  static constexpr int width = 8;
  static Vector load(const float* p) { return _mm256_loadu_ps(p); }
  static void store(float* p, Vector v) { _mm256_storeu_ps(p, v); }
  static Vector all(float v) { return _mm256_set1_ps(v); }
  static Mask mask(uint64_t rows, int first) {
    const __m256i bits = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    const __m256i own = _mm256_and_si256(_mm256_set1_epi32(static_cast<int>(rows >> first)), bits);
    return _mm256_castsi256_ps(_mm256_cmpeq_epi32(own, bits));
  }
  static Vector choose(Mask m, Vector yes, Vector no) { return _mm256_blendv_ps(no, yes, m); }
  static Vector only(Mask m, Vector v) { return _mm256_and_ps(m, v); }
  static Vector add(Vector a, Vector b) { return _mm256_add_ps(a, b); }
  static Vector mul(Vector a, Vector b) { return _mm256_mul_ps(a, b); }
};

struct Doubles {
  using Number = double;
  using Vector = __m256d;
  using Mask = __m256d;
  static constexpr int width = 4;
  static Vector load(const double* p) { return _mm256_loadu_pd(p); }
  static void store(double* p, Vector v) { _mm256_storeu_pd(p, v); }
  static Vector all(double v) { return _mm256_set1_pd(v); }
  static Mask mask(uint64_t rows, int first) {
    const __m256i bits = _mm256_setr_epi64x(1, 2, 4, 8);
    const __m256i own = _mm256_and_si256(_mm256_set1_epi64x(static_cast<long long>(rows >> first)), bits);
    return _mm256_castsi256_pd(_mm256_cmpeq_epi64(own, bits));
  }
  static Vector choose(Mask m, Vector yes, Vector no) { return _mm256_blendv_pd(no, yes, m); }
  static Vector only(Mask m, Vector v) { return _mm256_and_pd(m, v); }
  static Vector add(Vector a, Vector b) { return _mm256_add_pd(a, b); }
  static Vector mul(Vector a, Vector b) { return _mm256_mul_pd(a, b); }
};

#else

// Sixteen bytes at a time, which every compiler maps to what the machine has.
template <typename T, typename I>
struct Few {
  using Number = T;
  typedef T Vector __attribute__((vector_size(16)));
  typedef I Mask __attribute__((vector_size(16)));
  static constexpr int width = 16 / sizeof(T);
  static Vector load(const T* p) {
    Vector v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
  }
  static void store(T* p, Vector v) { __builtin_memcpy(p, &v, sizeof v); }
  static Vector all(T v) { return Vector{} + v; }
  static Mask mask(uint64_t rows, int first) {
    Mask m;
    for (int c = 0; c < width; ++c) m[c] = -static_cast<I>(rows >> (first + c) & 1);
    return m;
  }
  static Vector choose(Mask m, Vector yes, Vector no) { return m ? yes : no; }
  static Vector only(Mask m, Vector v) { return m ? v : Vector{}; }
  static Vector add(Vector a, Vector b) { return a + b; }
  static Vector mul(Vector a, Vector b) { return a * b; }
};
using Floats = Few<float, int32_t>;
using Doubles = Few<double, int64_t>;

#endif

}  // namespace
}  // namespace penstock::PENSTOCK_ISA
