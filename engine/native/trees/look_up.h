// Adds rows of the leaf tables to the features' sums, for a block of rows.
#pragma once

#include <cstdint>

#include "kernels.h"
#include "simd.h"

namespace penstock::PENSTOCK_ISA {
namespace {

void number(const uint64_t* planes, int32_t count, uint8_t* codes);  // Kernels::number

constexpr int planes_max = 16;

#if defined(__AVX512F__)

using Code = __m512i;
constexpr int picked_bits_max = 8;  // up to here a table is in registers; gathering is slower

// values[code] for 16 rows, by halves of the table; bit b of the codes of all rows is planes[b].
template <int bits>
inline __m512 picked(const __m512* values, Code code, const uint64_t* planes, int r) {
  if constexpr (bits <= 4) {
    return _mm512_permutexvar_ps(code, values[0]);
  } else if constexpr (bits == 5) {
    return _mm512_permutex2var_ps(values[0], code, values[1]);
  } else {
    const __m512 lower = picked<bits - 1>(values, code, planes, r);
    const __m512 upper = picked<bits - 1>(values + (1 << (bits - 5)), code, planes, r);
    return _mm512_mask_blend_ps(static_cast<__mmask16>(planes[bits - 1] >> r), lower, upper);
  }
}

template <int bits, int vectors>
void add_picked(const float* values, int32_t features, const int32_t* slots, const Code* codes, const uint64_t* planes,
                float* phi_all) {
  constexpr int loads = bits <= 4 ? 1 : 1 << (bits - 4);
  for (int32_t f = 0; f < features; ++f, values += loads * 16) {
    __m512 table[loads];
    for (int v = 0; v < loads; ++v) table[v] = _mm512_loadu_ps(values + v * 16);
    float* phi = phi_all + static_cast<int64_t>(slots[f]) * block;
    for (int v = 0; v < vectors; ++v)
      _mm512_storeu_ps(phi + v * 16, _mm512_add_ps(_mm512_loadu_ps(phi + v * 16), picked<bits>(table, codes[v], planes, v * 16)));
  }
}

inline Code widened(const uint8_t* codes) {
  return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(codes)));
}
inline Code joined(Code low, Code high) { return _mm512_or_si512(low, _mm512_slli_epi32(high, 8)); }
inline Floats::Vector gathered(const float* values, Code code) { return _mm512_i32gather_ps(code, values, 4); }

#elif defined(__AVX2__)

using Code = __m256i;
constexpr int picked_bits_max = 8;

// values[code] for eight rows, by halves of the table.
template <int bits>
inline __m256 picked(const float* values, Code code) {
  if constexpr (bits <= 3) {
    return _mm256_permutevar8x32_ps(_mm256_loadu_ps(values), code);
  } else {
    const __m256 lower = picked<bits - 1>(values, code), upper = picked<bits - 1>(values + (1 << (bits - 1)), code);
    return _mm256_blendv_ps(lower, upper, _mm256_castsi256_ps(_mm256_slli_epi32(code, 32 - bits)));
  }
}

template <int bits, int vectors>
void add_picked(const float* values, int32_t features, const int32_t* slots, const Code* codes, const uint64_t*, float* phi_all) {
  for (int v = 0; v < vectors; ++v) {
    for (int32_t f = 0; f < features; ++f) {
      float* phi = phi_all + static_cast<int64_t>(slots[f]) * block + v * 8;
      _mm256_storeu_ps(phi, _mm256_add_ps(_mm256_loadu_ps(phi), picked<bits>(values + (f << bits), codes[v])));
    }
  }
}

inline Code widened(const uint8_t* codes) {
  return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(codes)));
}
inline Code joined(Code low, Code high) { return _mm256_or_si256(low, _mm256_slli_epi32(high, 8)); }
inline Floats::Vector gathered(const float* values, Code code) { return _mm256_i32gather_ps(values, code, 4); }

#else

struct Code {
  int32_t of[Floats::width];
};
constexpr int picked_bits_max = 0;

template <int bits, int vectors>
void add_picked(const float*, int32_t, const int32_t*, const Code*, const uint64_t*, float*) {}

inline Code widened(const uint8_t* codes) {
  Code wide;
  for (int c = 0; c < Floats::width; ++c) wide.of[c] = codes[c];
  return wide;
}

inline Code joined(Code low, const Code& high) {
  for (int c = 0; c < Floats::width; ++c) low.of[c] |= high.of[c] << 8;
  return low;
}

inline Floats::Vector gathered(const float* values, const Code& code) {
  Floats::Vector v;
  for (int c = 0; c < Floats::width; ++c) v[c] = values[code.of[c]];
  return v;
}

#endif

void add_gathered(const float* values, int32_t bits, int32_t features, const int32_t* slots, const Code* codes, int32_t rows,
                  float* phi_all) {
  for (int32_t f = 0; f < features; ++f, values += table_rows(bits)) {
    float* phi = phi_all + static_cast<int64_t>(slots[f]) * block;
    for (int r = 0; r < rows; r += Floats::width)
      Floats::store(phi + r, Floats::add(Floats::load(phi + r), gathered(values, codes[r / Floats::width])));
  }
}

// What the rows of the block answer: by bit, and as numbers.
struct Answered {
  uint64_t planes[planes_max];
  Code codes[block / Floats::width];

  Answered(const Lookup& work, const LeafTable& table) {
    const int32_t* bits = work.bits + table.first_bit;
    for (int32_t b = 0; b < table.bits; ++b) planes[b] = work.masks[bits[b]];
    uint8_t bytes[block];
    const int vectors = work.rows / Floats::width;
    number(planes, table.bits < 8 ? table.bits : 8, bytes);
    for (int v = 0; v < vectors; ++v) codes[v] = widened(bytes + v * Floats::width);
    if (table.bits <= 8) return;
    number(planes + 8, table.bits - 8, bytes);
    for (int v = 0; v < vectors; ++v) codes[v] = joined(codes[v], widened(bytes + v * Floats::width));
  }
};

inline int64_t first_value(const Lookup& work, const LeafTable& table) {
  return table.first + work.output * table_rows(table.bits) * table.features;
}

// `vectors` of rows.
template <int vectors>
void look_up_some(const Lookup& work, float* phi) {
  for (const LeafTable* table = work.tables; table != work.tables + work.count; ++table) {
    const Answered answered(work, *table);
    const Code* codes = answered.codes;
    const uint64_t* planes = answered.planes;
    const int32_t bits = table->bits, features = table->features;
    const float* values = work.values + first_value(work, *table);
    const int32_t* slots = work.slots + table->first_feature;
    switch (bits <= picked_bits_max ? bits : 0) {
      case 1:
      case 2:
      case 3:
      case 4:
        add_picked<4, vectors>(values, features, slots, codes, planes, phi);
        break;
      case 5:
        add_picked<5, vectors>(values, features, slots, codes, planes, phi);
        break;
      case 6:
        add_picked<6, vectors>(values, features, slots, codes, planes, phi);
        break;
      case 7:
        add_picked<7, vectors>(values, features, slots, codes, planes, phi);
        break;
      case 8:
        add_picked<8, vectors>(values, features, slots, codes, planes, phi);
        break;
      default:
        add_gathered(values, bits, features, slots, codes, work.rows, phi);
    }
  }
}

void look_up(const Lookup& work, float* phi) {
  constexpr int each = 16 / Floats::width;
  switch (work.rows / 16) {
    case 1:
      look_up_some<1 * each>(work, phi);
      break;
    case 2:
      look_up_some<2 * each>(work, phi);
      break;
    case 3:
      look_up_some<3 * each>(work, phi);
      break;
    default:
      look_up_some<4 * each>(work, phi);
  }
}

void look_up_exact(const Lookup& work, double* phi_all) {
  for (const LeafTable* table = work.tables; table != work.tables + work.count; ++table) {
    const Answered answered(work, *table);
    int32_t codes[block];
    __builtin_memcpy(codes, answered.codes, sizeof codes);
    const int64_t first = first_value(work, *table);
    const float *values = work.values + first, *rests = work.rests + first;
    for (int32_t f = 0; f < table->features; ++f, values += table_rows(table->bits), rests += table_rows(table->bits)) {
      double* phi = phi_all + static_cast<int64_t>(work.slots[table->first_feature + f]) * block;
      for (int32_t c = 0; c < work.rows; ++c)
        phi[c] += static_cast<double>(values[codes[c]]) + static_cast<double>(rests[codes[c]]);
    }
  }
}

}  // namespace
}  // namespace penstock::PENSTOCK_ISA
