// Compiled several times with PENSTOCK_ISA set to the name of the instruction set that the compiler was told to use.
#include "kernels.h"

#include <cmath>
#include <cstring>

#define PENSTOCK_TEXT_(x) #x
#define PENSTOCK_TEXT(x) PENSTOCK_TEXT_(x)

namespace penstock::PENSTOCK_ISA {
namespace {

// Whether each row's category is in the set; NaN answers `missing`.
inline void member(const TestData& test, const uint32_t* bitmaps, const float* x, uint32_t* answer) {
  const uint32_t* words = bitmaps + test.bitmap;
  const float bits = static_cast<float>(test.bitmap_bits);
  for (int c = 0; c < block; ++c) {
    const float value = x[c];
    const bool covered = value >= 0.0f && value < bits;
    const int32_t code = covered ? static_cast<int32_t>(value) : 0;
    const uint32_t inside = (words[code >> 5] >> (code & 31)) & 1u;
    const bool exact = covered && static_cast<float>(code) == value;
    answer[c] = value != value ? test.missing : (exact ? inside : 0u);
  }
}

void chunk(const ChunkTest* tests, int32_t count, const uint32_t* bitmaps, const float* x_all, uint8_t* leaves) {
  alignas(64) uint32_t possible[block];
  alignas(64) uint32_t answer[block];
  for (int c = 0; c < block; ++c) possible[c] = 0xFFFFFFFFu;
  for (int32_t i = 0; i < count; ++i) {
    const ChunkTest& at = tests[i];
    const float* x = x_all + static_cast<int64_t>(at.test.feature) * block;
    const uint32_t yes = at.mask_yes, no = at.mask_no;
    if (at.test.bitmap >= 0) {
      member(at.test, bitmaps, x, answer);
      for (int c = 0; c < block; ++c) possible[c] &= answer[c] ? yes : no;
    } else {
      const float threshold = at.test.threshold;
      const uint32_t unknown = at.test.missing ? yes : no;
      for (int c = 0; c < block; ++c) {
        const uint32_t known = x[c] <= threshold ? yes : no;
        possible[c] &= x[c] != x[c] ? unknown : known;
      }
    }
  }
  for (int c = 0; c < block; ++c) leaves[c] = possible[c] ? static_cast<uint8_t>(__builtin_ctz(possible[c])) : 32;
}

void decide(const TestData* tests, int32_t count, const uint32_t* bitmaps, const float* x_all, uint8_t* answers) {
  alignas(64) uint32_t answer[block];
  for (int32_t i = 0; i < count; ++i) {
    const TestData& test = tests[i];
    const float* x = x_all + static_cast<int64_t>(test.feature) * block;
    if (test.bitmap >= 0) {
      member(test, bitmaps, x, answer);
    } else {
      const float threshold = test.threshold;
      const uint32_t missing = test.missing;
      for (int c = 0; c < block; ++c) answer[c] = x[c] != x[c] ? missing : (x[c] <= threshold ? 1u : 0u);
    }
    uint8_t* out = answers + static_cast<int64_t>(i) * block;
    for (int c = 0; c < block; ++c) out[c] = static_cast<uint8_t>(answer[c]);
  }
}

// Sixteen lanes; the compiler makes of it what the instruction set has. Rows of tables and sums are 64-byte aligned.
typedef float Lanes __attribute__((vector_size(64), may_alias));

template <int vectors>
void add_rows_of(const Group* groups, int32_t count, const uint16_t* numbers, const float* tables, float* acc) {
  for (int c = 0; c < block; ++c) {
    Lanes* out = reinterpret_cast<Lanes*>(acc) + c * vectors;
    Lanes sum[vectors];
    for (int j = 0; j < vectors; ++j) sum[j] = out[j];
    for (int32_t g = 0; g < count; ++g) {
      const Lanes* row = reinterpret_cast<const Lanes*>(tables + groups[g].table) + static_cast<int64_t>(numbers[g * block + c]) * vectors;
      for (int j = 0; j < vectors; ++j) sum[j] += row[j];
    }
    for (int j = 0; j < vectors; ++j) out[j] = sum[j];
  }
}

constexpr int groups_at_once = 256;

void add_rows(const Group* groups, int32_t count, const int32_t* bit_places, const uint8_t* answers, const float* tables,
              int32_t width, float* acc) {
  alignas(64) static thread_local uint16_t numbers[groups_at_once * block];
  for (int32_t from = 0; from < count; from += groups_at_once) {
    const int32_t some = count - from < groups_at_once ? count - from : groups_at_once;
    for (int32_t g = 0; g < some; ++g) {
      const Group& group = groups[from + g];
      uint16_t* number = numbers + g * block;
      std::memset(number, 0, block * sizeof(uint16_t));
      for (int32_t b = 0; b < group.bits; ++b) {
        const uint8_t* answer = answers + static_cast<int64_t>(bit_places[group.first_bit + b]) * block;
        for (int c = 0; c < block; ++c) number[c] |= static_cast<uint16_t>(answer[c] << b);
      }
    }
    switch (width / 16) {
      case 1: add_rows_of<1>(groups + from, some, numbers, tables, acc); break;
      case 2: add_rows_of<2>(groups + from, some, numbers, tables, acc); break;
      case 3: add_rows_of<3>(groups + from, some, numbers, tables, acc); break;
      case 4: add_rows_of<4>(groups + from, some, numbers, tables, acc); break;
      default:
        for (int c = 0; c < block; ++c) {
          float* out = acc + static_cast<int64_t>(c) * width;
          for (int32_t g = 0; g < some; ++g) {
            const float* row = tables + groups[from + g].table + static_cast<int64_t>(numbers[g * block + c]) * width;
            for (int32_t j = 0; j < width; ++j) out[j] += row[j];
          }
        }
    }
  }
}

template <typename T>
void quadrature(const T* o, const double* z, int32_t elements, const double* t, const double* w, int32_t nodes, T* prefix,
                T* phi) {
  for (int64_t i = 0; i < static_cast<int64_t>(elements) * block; ++i) phi[i] = 0;
  alignas(64) T suffix[block];
  for (int32_t q = 0; q < nodes; ++q) {
    const T at = static_cast<T>(t[q]), weight = static_cast<T>(w[q]);
    for (int c = 0; c < block; ++c) prefix[c] = weight;
    for (int32_t k = 0; k + 1 < elements; ++k) {
      const T without = static_cast<T>(z[k] * (1.0 - t[q]));
      const T* own = o + static_cast<int64_t>(k) * block;
      const T* before = prefix + static_cast<int64_t>(k) * block;
      T* after = prefix + static_cast<int64_t>(k + 1) * block;
      for (int c = 0; c < block; ++c) after[c] = before[c] * (without + own[c] * at);
    }
    for (int c = 0; c < block; ++c) suffix[c] = 1;
    for (int32_t k = elements; k-- > 0;) {
      const T without = static_cast<T>(z[k] * (1.0 - t[q]));
      const T* own = o + static_cast<int64_t>(k) * block;
      const T* before = prefix + static_cast<int64_t>(k) * block;
      T* out = phi + static_cast<int64_t>(k) * block;
      for (int c = 0; c < block; ++c) {
        out[c] += before[c] * suffix[c];
        suffix[c] *= without + own[c] * at;
      }
    }
  }
}

}  // namespace

extern const Kernels kernels;
const Kernels kernels = {PENSTOCK_TEXT(PENSTOCK_ISA), chunk, decide, add_rows, quadrature<float>, quadrature<double>};

}  // namespace penstock::PENSTOCK_ISA
