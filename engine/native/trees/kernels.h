// The inner loops, compiled once for each instruction set; dispatch.cpp chooses at run time.
//
// All work on a block of `block` rows, by columns: x[slot * block + c] is row c; rows past the end repeat the last one. What
// a test answers for a block is one 64-bit mask: bit c is set where row c goes to yes. A row's result never depends on its
// neighbours. Nothing here is checked: Forest::check() has been.
#pragma once

#include <cstdint>

namespace penstock {

constexpr int block = 64;

struct Test {
  int32_t slot;  // of the feature, among those that the forest tests
  float threshold;
  int32_t set;  // -1: x <= threshold
  bool missing_yes;
};

struct Set {
  const float* members;  // ascending
  const uint32_t* bits;  // bit c: c is a member; null where not all members are small whole numbers
  int32_t count, bit_count;
};

// An inner node for the quadrature, in preorder.
struct PathNode {
  int32_t slot;
  int32_t yes, no;  // places of the children; negative: a leaf
  int32_t earlier;  // nearest place above with the same feature, -1: none
  bool earlier_side;
};

// What the quadrature needs to know at a node besides the masks, `head + each * points` numbers:
//   inner child somewhere: (o - z) of yes and of no, where the row goes to yes and where to no; values of leaf children;
//     weights of the children for rows that an earlier test of the feature has sent elsewhere; and by quadrature point the
//     weights of yes and no, where the row goes to yes and where to no, and the weight of the difference.
//   two leaves: what the feature gets where the row goes to yes and where to no; the mean of such other rows; and by
//     point the mean where it goes to yes and where to no, then two unused, and the weight of the difference.
struct Constants {
  static constexpr int head = 8, each = 5;
  static constexpr int diff_yes_1 = 0, diff_yes_0 = 1, diff_no_1 = 2, diff_no_0 = 3;
  static constexpr int leaf_yes = 4, leaf_no = 5, lost_yes = 6, lost_no = 7;
  static constexpr int part_1 = 0, part_0 = 1, part_lost = 2;
  static constexpr int yes_1 = 0, yes_0 = 1, no_1 = 2, no_0 = 3, spread = 4;
  static constexpr int mean_1 = 0, mean_0 = 1;
};

constexpr int points_max = 4;  // quadrature points in one pass

template <typename T>
struct Quadrature {
  const PathNode* nodes;
  const T* constants;
  const T* weights;  // (points,)
  int32_t points;
  int32_t rows;  // of the block that matter
  const uint64_t* masks;
  uint64_t* live;  // (places,) scratch
  T* stack;        // (2 * depth + 1, points, block) scratch
  T* phi;          // += (slots, block)
};

// The sum of the SHAP values of one or two leaves, by what their path's tests answer.
struct LeafTable {
  int32_t first_bit, bits;          // into the list of bits
  int32_t first_feature, features;  // into the list of slots
  int32_t own;                      // which of them the last bit's test is of
  int64_t first;                    // of the first output's (features, table_rows(bits)) floats
};

constexpr int64_t table_rows(int bits) { return bits < 4 ? 16 : int64_t{1} << bits; }

struct Lookup {
  const LeafTable* tables;
  int32_t count;
  int32_t output;       // among the tree's own
  const int32_t* bits;  // a table's bit b is set for the rows of masks[bits[table.first_bit + b]]
  const int32_t* slots;
  const float* values;
  const float* rests;  // what float32 left of them; only for look_up_exact
  const uint64_t* masks;
  int32_t rows;
};

struct Kernels {
  const char* name;
  bool wide;  // whether a block of rows is decided faster than its rows are walked
  // masks[i] = what test i answers.
  void (*decide)(const Test* tests, int32_t count, const Set* sets, const float* x, uint64_t* masks);
  // codes[c] = the number whose bits are those of row c in the planes; at most 8.
  void (*number)(const uint64_t* planes, int32_t count, uint8_t* codes);
  // sums[c] += values[codes[c]]; of float32 at most 64 values in room for 64.
  void (*add_coded)(const double* values, const uint8_t* codes, double* sums);
  void (*add_coded_small)(const float* values, const uint8_t* codes, double* sums);
  // sums += phi, and phi = 0, of the first `rows` rows of each slot.
  void (*flush)(float* phi, double* sums, int32_t slots, int32_t rows);
  void (*quadrature_f)(const Quadrature<float>& work);
  void (*quadrature_d)(const Quadrature<double>& work);
  void (*look_up)(const Lookup& work, float* phi);  // += (slots, block)
  void (*look_up_exact)(const Lookup& work, double* phi);
};

const Kernels& best_kernels();

}  // namespace penstock
