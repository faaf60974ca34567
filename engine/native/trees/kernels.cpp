// Compiled several times with PENSTOCK_ISA set to the name of the instruction set that the compiler was told to use.
#include "kernels.h"

#include "look_up.h"
#include "quadrature_walk.h"
#include "simd.h"

#define PENSTOCK_TEXT_(x) #x
#define PENSTOCK_TEXT(x) PENSTOCK_TEXT_(x)

namespace penstock::PENSTOCK_ISA {
namespace {

constexpr int few_members = 6;  // a set this small is compared with, member by member

#if defined(__AVX512F__)

template <int predicate>
uint64_t compared(const float* x, float with) {
  const __m512 all = _mm512_set1_ps(with);
  const __mmask16 a = _mm512_cmp_ps_mask(_mm512_loadu_ps(x), all, predicate);
  const __mmask16 b = _mm512_cmp_ps_mask(_mm512_loadu_ps(x + 16), all, predicate);
  const __mmask16 c = _mm512_cmp_ps_mask(_mm512_loadu_ps(x + 32), all, predicate);
  const __mmask16 d = _mm512_cmp_ps_mask(_mm512_loadu_ps(x + 48), all, predicate);
  return _cvtmask64_u64(_mm512_kunpackd(_mm512_kunpackw(d, c), _mm512_kunpackw(b, a)));
}

#elif defined(__AVX2__)

template <int predicate>
uint64_t compared(const float* x, float with) {
  const __m256 all = _mm256_set1_ps(with);
  uint64_t rows = 0;
  for (int v = 0; v < 8; ++v) {
    const int eight = _mm256_movemask_ps(_mm256_cmp_ps(_mm256_loadu_ps(x + v * 8), all, predicate));
    rows |= static_cast<uint64_t>(static_cast<uint32_t>(eight)) << (v * 8);
  }
  return rows;
}

#else

enum { _CMP_LE_OQ, _CMP_NGT_UQ, _CMP_EQ_OQ, _CMP_UNORD_Q };

template <int predicate>
uint64_t compared(const float* x, float with) {
  uint64_t rows = 0;
  for (int c = 0; c < block; ++c) {
    bool holds = false;
    if (predicate == _CMP_LE_OQ) holds = x[c] <= with;
    if (predicate == _CMP_NGT_UQ) holds = !(x[c] > with);
    if (predicate == _CMP_EQ_OQ) holds = x[c] == with;
    if (predicate == _CMP_UNORD_Q) holds = x[c] != x[c];
    rows |= static_cast<uint64_t>(holds) << c;
  }
  return rows;
}

#endif

bool among(const Set& set, float x) {
  if (set.bits != nullptr) {
    if (!(x >= 0.0f && x < static_cast<float>(set.bit_count))) return false;
    const auto code = static_cast<int32_t>(x);
    return static_cast<float>(code) == x && (set.bits[code >> 5] >> (code & 31) & 1u);
  }
  int32_t from = 0, to = set.count;
  while (from < to) {
    const int32_t middle = from + (to - from) / 2;
    if (set.members[middle] < x) from = middle + 1;
    else to = middle;
  }
  return from < set.count && set.members[from] == x;
}

uint64_t members(const Set& set, const float* x) {
  uint64_t rows = 0;
  if (set.count <= few_members) {
    for (int32_t i = 0; i < set.count; ++i) rows |= compared<_CMP_EQ_OQ>(x, set.members[i]);
  } else {
    for (int c = 0; c < block; ++c) rows |= static_cast<uint64_t>(among(set, x[c])) << c;
  }
  return rows;
}

void decide(const Test* tests, int32_t count, const Set* sets, const float* x_all, uint64_t* masks) {
  for (int32_t i = 0; i < count; ++i) {
    const Test& test = tests[i];
    const float* x = x_all + static_cast<int64_t>(test.slot) * block;
    if (test.set >= 0) {
      const uint64_t missing = compared<_CMP_UNORD_Q>(x, 0.0f);
      masks[i] = test.missing_yes ? members(sets[test.set], x) | missing : members(sets[test.set], x) & ~missing;
    } else {
      masks[i] = test.missing_yes ? compared<_CMP_NGT_UQ>(x, test.threshold) : compared<_CMP_LE_OQ>(x, test.threshold);
    }
  }
}

#if defined(__AVX512F__)

void number(const uint64_t* planes, int32_t count, uint8_t* codes) {
  __m512i all = _mm512_setzero_si512();
  for (int32_t b = 0; b < count; ++b)
    all = _mm512_mask_add_epi8(all, _cvtu64_mask64(planes[b]), all, _mm512_set1_epi8(static_cast<char>(1 << b)));
  _mm512_storeu_si512(codes, all);
}

#else

void number(const uint64_t* planes, int32_t count, uint8_t* codes) {
  for (int eight = 0; eight < 8; ++eight) {
    uint64_t all = 0;
    for (int32_t b = 0; b < count; ++b) {
      // Byte i of the product holds bit i of the rows at its top, shifted down to where bit b belongs.
      const uint64_t rows = (planes[b] >> (eight * 8)) & 0xFF;
      const uint64_t low = (rows & 0x7F) * 0x0002040810204081ull & 0x0101010101010101ull;
      all |= (low | (rows >> 7) << 56) << b;
    }
    __builtin_memcpy(codes + eight * 8, &all, 8);
  }
}

#endif

void add_coded(const double* values, const uint8_t* codes, double* sums) {
  for (int c = 0; c < block; ++c) sums[c] += values[codes[c]];
}

#if defined(__AVX512F__)

void add_coded_small(const float* values, const uint8_t* codes, double* sums) {
  const __m512 v0 = _mm512_loadu_ps(values), v1 = _mm512_loadu_ps(values + 16);
  const __m512 v2 = _mm512_loadu_ps(values + 32), v3 = _mm512_loadu_ps(values + 48);
  for (int c = 0; c < block; c += 16) {
    const __m512i code = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(codes + c)));
    const __mmask16 upper = _mm512_test_epi32_mask(code, _mm512_set1_epi32(32));
    const __m512 picked = _mm512_mask_blend_ps(upper, _mm512_permutex2var_ps(v0, code, v1), _mm512_permutex2var_ps(v2, code, v3));
    const __m512d low = _mm512_cvtps_pd(_mm512_castps512_ps256(picked));
    const __m512d high = _mm512_cvtps_pd(_mm512_extractf32x8_ps(picked, 1));
    _mm512_storeu_pd(sums + c, _mm512_add_pd(_mm512_loadu_pd(sums + c), low));
    _mm512_storeu_pd(sums + c + 8, _mm512_add_pd(_mm512_loadu_pd(sums + c + 8), high));
  }
}

#else

void add_coded_small(const float* values, const uint8_t* codes, double* sums) {
  for (int c = 0; c < block; ++c) sums[c] += static_cast<double>(values[codes[c]]);
}

#endif

void flush(float* phi, double* sums, int32_t slots, int32_t rows) {
  for (int32_t s = 0; s < slots; ++s, phi += block, sums += block)
    for (int32_t c = 0; c < rows; ++c) {
      sums[c] += static_cast<double>(phi[c]);
      phi[c] = 0.0f;
    }
}

constexpr bool wide = Floats::width > 4;

}  // namespace

extern const Kernels kernels;
const Kernels kernels = {
    PENSTOCK_TEXT(PENSTOCK_ISA), wide,    decide,       number, add_coded, add_coded_small, flush, quadrature<Floats>,
    quadrature<Doubles>,         look_up, look_up_exact};

}  // namespace penstock::PENSTOCK_ISA
