// A tree ensemble as flat arrays, checked once, and the trees in the order in which every kernel visits them.
//
// Shapes: T trees, n nodes, L leaves, F features, K outputs. At an inner node a row goes to `yes` where x <= threshold
// (set_index < 0), or where x is a member of the set, or where x is NaN and missing_yes is 1. check() throws
// std::invalid_argument for anything else than trees: after it every index is in bounds, every node that a root reaches is
// reached once, no path has more than depth_max tests, and no number is NaN or, but for thresholds, infinite.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace penstock {

constexpr int depth_max = 1024;

// The arrays are the caller's, who keeps them as they are for as long as a kernel lives: of a deep forest they are most of what
// a process holds.
struct Forest {
  int32_t features = 0, outputs = 0;
  std::span<const int32_t> roots, feature, set_index, yes, no, leaf;
  std::span<const float> threshold;
  std::span<const uint8_t> missing_yes;
  std::span<const double> leaf_values, base_values;  // (L, K), (K,)
  std::span<const int32_t> set_offsets;
  std::span<const float> set_values;

  void check() const;
  bool passes(int32_t node, float x) const;  // whether x goes to `yes`
  int32_t leaf_of(int32_t root, const float* row) const;
  const double* value(int32_t leaf_row) const { return leaf_values.data() + static_cast<int64_t>(leaf_row) * outputs; }
};

// One tree. Its inner nodes are called by their place in preorder, yes before no; its leaves likewise by theirs.
struct Tree {
  int32_t depth = 0;                  // tests on the longest path
  int32_t distinct_max = 0;           // different features on the path that has most
  std::vector<int32_t> node;          // in the forest, by place
  std::vector<int32_t> yes, no;       // places of the children; ~leaf where the child is a leaf
  std::vector<int32_t> above;         // place of the parent, -1 at the root
  std::vector<uint8_t> side;          // 1: the parent's yes
  std::vector<int32_t> level;         // tests before this one
  std::vector<int32_t> earlier;       // the nearest place above that tests the same feature, -1: none
  std::vector<uint8_t> earlier_side;  // 1: on its yes side
  std::vector<int32_t> leaf_row;      // in leaf_values, by leaf

  int32_t places() const { return static_cast<int32_t>(node.size()); }
  int32_t leaves() const { return static_cast<int32_t>(leaf_row.size()); }
};

Tree unfold(const Forest& forest, int32_t root);

}  // namespace penstock
