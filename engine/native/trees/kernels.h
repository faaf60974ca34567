// The inner loops, compiled once for each instruction set; dispatch.cpp chooses at run time.
//
// All work on a block of `block` rows, transposed: column c of feature f is x[f * block + c]; rows past the end repeat the last
// one. A row's result never depends on its neighbours, and is the same bits for every instruction set: no contraction, and
// sums run in one order.
#pragma once

#include <cstdint>

namespace penstock {

constexpr int block = 64;

struct TestData {
  int32_t feature;
  float threshold;
  int32_t bitmap;       // first 32-bit word of the category bitmap, -1: a numeric test
  int32_t bitmap_bits;  // codes it covers; what is beyond is not in the set
  uint32_t missing;     // 1: NaN goes to yes
};

struct ChunkTest {
  TestData test;
  uint32_t mask_yes, mask_no;  // leaves of the chunk that remain possible
};

struct Group {
  int32_t first_bit, bits;  // into `bit_places`: inner nodes of the tree whose answers are the row's number
  int64_t table;            // first float of the group's rows
};

struct Kernels {
  const char* name;

  // leaves[c] = the chunk's leaf that row c reaches, 32 when it reaches none.
  void (*chunk)(const ChunkTest* tests, int32_t count, const uint32_t* bitmaps, const float* x, uint8_t* leaves);

  // answers[i * block + c] = 1 where row c goes to yes at test i.
  void (*decide)(const TestData* tests, int32_t count, const uint32_t* bitmaps, const float* x, uint8_t* answers);

  // acc[c * width + j] += the group's row of that number, over all groups; width is a multiple of 16.
  void (*add_rows)(const Group* groups, int32_t count, const int32_t* bit_places, const uint8_t* answers, const float* tables,
                   int32_t width, float* acc);

  // Shapley weights of one leaf by quadrature: phi[k * block + c] = integral of the product of the others' factors.
  // o is (elements, block), 0 or 1; z (elements,); t and w the quadrature nodes and weights on [0, 1].
  void (*quadrature_f)(const float* o, const double* z, int32_t elements, const double* t, const double* w, int32_t nodes,
                       float* scratch, float* phi);
  void (*quadrature_d)(const double* o, const double* z, int32_t elements, const double* t, const double* w, int32_t nodes,
                       double* scratch, double* phi);
};

const Kernels& best_kernels();

}  // namespace penstock
