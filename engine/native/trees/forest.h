// A tree ensemble as flat arrays, checked once, and what every kernel derives from it.
//
// Shapes: T trees, n nodes, L leaves, F features, K outputs. A row goes to `yes` where x <= threshold (set_index < 0) or where
// x is in the set, and where missing_yes is 1 if x is NaN. check() throws std::invalid_argument for anything else than trees:
// after it every index is in bounds, every node but a root has one parent, and no path is longer than depth_max.
#pragma once

#include <cstdint>
#include <vector>

namespace penstock {

constexpr int depth_max = 1024;

struct Forest {
  int32_t features = 0, outputs = 0;
  std::vector<int32_t> roots, feature, set_index, yes, no, leaf;
  std::vector<float> threshold;
  std::vector<uint8_t> missing_yes;
  std::vector<double> leaf_values, base_values;  // (L, K), (K,)
  std::vector<int32_t> set_offsets;
  std::vector<float> set_values;

  void check();  // also sorts out the nodes' depth

  bool passes(int32_t node, float x) const;  // whether x goes to `yes`
  int32_t leaf_of(int32_t root, const float* row) const;
  const double* value(int32_t leaf_row) const { return leaf_values.data() + static_cast<int64_t>(leaf_row) * outputs; }
};

// One tree's inner nodes, numbered from 0 in preorder, and its leaves' paths with each feature merged into one element.
struct Tree {
  struct Element {
    int32_t feature;
    int32_t first_test, test_count;  // into `tests`
  };
  struct Leaf {
    int32_t row;  // in Forest::leaf_values
    int32_t first_element, element_count;
  };
  struct Test {
    int32_t inner;  // place in `inner`
    uint8_t wanted;
  };
  int32_t root = 0;
  int32_t depth = 0;
  std::vector<int32_t> inner;         // node numbers
  std::vector<int32_t> inner_depth;
  std::vector<int32_t> inner_parent;  // place in `inner`, -1 at the root
  std::vector<uint8_t> inner_side;    // 1: the parent's yes
  std::vector<int32_t> inner_size;    // inner nodes in the subtree, itself included
  std::vector<Leaf> leaves;           // in preorder, yes before no
  std::vector<int32_t> leaf_parent;   // place in `inner` of each leaf's parent, -1 for a lone leaf
  std::vector<uint8_t> leaf_side;
  std::vector<Element> elements;
  std::vector<Test> tests;
};

Tree unfold(const Forest& forest, int32_t root);

}  // namespace penstock
