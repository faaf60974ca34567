#include "predict.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace penstock {
namespace {

constexpr int32_t chunk_leaves = 32;
constexpr int32_t leaves_walked_above = 768;  // every test of a tree is evaluated; past this, walking one path is cheaper
constexpr float codes_max = 1 << 16;

}  // namespace

Tests::Tests(const Forest& forest) : forest_(forest) {
  const int32_t sets = static_cast<int32_t>(forest.set_offsets.size()) - 1;
  for (int32_t s = 0; s < sets; ++s) {
    const auto begin = forest.set_values.begin() + forest.set_offsets[s];
    const auto end = forest.set_values.begin() + forest.set_offsets[s + 1];
    const bool codes = std::all_of(begin, end, [](float v) { return v >= 0 && v < codes_max && v == std::floor(v); });
    bitmap_.push_back(codes ? static_cast<int32_t>(words_.size()) : -1);
    const int32_t top = codes && begin != end ? static_cast<int32_t>(*(end - 1)) + 1 : 0;
    bits_.push_back(top);
    if (!codes) continue;
    words_.resize(words_.size() + top / 32 + 1, 0);
    for (auto it = begin; it != end; ++it) {
      const int32_t code = static_cast<int32_t>(*it);
      words_[bitmap_.back() + code / 32] |= 1u << (code % 32);
    }
  }
}

TestData Tests::of(int32_t node) const {
  const int32_t set = forest_.set_index[node];
  return {forest_.feature[node], forest_.threshold[node], set < 0 ? -1 : bitmap_[set], set < 0 ? 0 : bits_[set],
          forest_.missing_yes[node]};
}

void transpose(const float* rows, int64_t count, int64_t begin, int32_t features, float* columns) {
  const float* from[block];
  for (int c = 0; c < block; ++c) from[c] = rows + std::min(begin + c, count - 1) * features;
  for (int32_t f = 0; f < features; ++f)
    for (int c = 0; c < block; ++c) columns[static_cast<int64_t>(f) * block + c] = from[c][f];
}

Predictor::Predictor(const Forest& forest) : forest_(forest), tests_(forest), kernels_(best_kernels()) {
  for (int32_t root : forest.roots) {
    const Tree tree = unfold(forest, root);
    Plan plan{static_cast<int32_t>(chunks_.size()), 0, root};
    const bool codes = std::all_of(tree.inner.begin(), tree.inner.end(), [&](int32_t node) { return tests_.fits(node); });
    if (codes && static_cast<int32_t>(tree.leaves.size()) <= leaves_walked_above) {
      for (int32_t first = 0; first < static_cast<int32_t>(tree.leaves.size()); first += chunk_leaves)
        cut(tree, first, std::min(first + chunk_leaves, static_cast<int32_t>(tree.leaves.size())));
      plan.chunk_count = static_cast<int32_t>(chunks_.size()) - plan.first_chunk;
    }
    plans_.push_back(plan);
  }
}

// Leaves [first, last) in preorder, with every test that tells some of them from others or from the rest of the tree.
void Predictor::cut(const Tree& tree, int32_t first, int32_t last) {
  Chunk chunk{static_cast<int32_t>(chunk_tests_.size()), 0, static_cast<int64_t>(values_.size())};
  std::vector<uint32_t> yes(tree.inner.size(), 0), no(tree.inner.size(), 0);
  for (int32_t l = first; l < last; ++l) {
    int32_t at = tree.leaf_parent[l];
    uint8_t side = tree.leaf_side[l];
    for (; at >= 0; side = tree.inner_side[at], at = tree.inner_parent[at])
      (side ? yes : no)[at] |= 1u << (l - first);
  }
  for (size_t i = 0; i < tree.inner.size(); ++i)
    if (yes[i] | no[i]) chunk_tests_.push_back({tests_.of(tree.inner[i]), ~no[i], ~yes[i]});
  chunk.test_count = static_cast<int32_t>(chunk_tests_.size()) - chunk.first_test;
  values_.resize(values_.size() + 33 * static_cast<size_t>(forest_.outputs), 0.0);
  for (int32_t l = first; l < last; ++l)
    std::copy_n(forest_.value(tree.leaves[l].row), forest_.outputs,
                values_.begin() + chunk.first_value + static_cast<int64_t>(l - first) * forest_.outputs);
  chunks_.push_back(chunk);
}

void Predictor::add_block(const float* columns, const float* rows, int64_t valid, double* sums) const {
  const int32_t outputs = forest_.outputs;
  uint8_t leaves[block];
  for (const Plan& plan : plans_) {
    if (plan.chunk_count == 0) {
      for (int64_t c = 0; c < valid; ++c) {
        const double* value = forest_.value(forest_.leaf_of(plan.root, rows + c * forest_.features));
        for (int32_t k = 0; k < outputs; ++k) sums[c * outputs + k] += value[k];
      }
      continue;
    }
    for (int32_t i = 0; i < plan.chunk_count; ++i) {
      const Chunk& chunk = chunks_[plan.first_chunk + i];
      kernels_.chunk(chunk_tests_.data() + chunk.first_test, chunk.test_count, tests_.bitmaps(), columns, leaves);
      const double* values = values_.data() + chunk.first_value;
      if (outputs == 1) {
        for (int c = 0; c < block; ++c) sums[c] += values[leaves[c]];
      } else {
        for (int c = 0; c < block; ++c)
          for (int32_t k = 0; k < outputs; ++k) sums[c * outputs + k] += values[leaves[c] * outputs + k];
      }
    }
  }
}

void Predictor::add_row(const float* row, double* sums) const {
  for (const Plan& plan : plans_) {
    const double* value = forest_.value(forest_.leaf_of(plan.root, row));
    for (int32_t k = 0; k < forest_.outputs; ++k) sums[k] += value[k];
  }
}

}  // namespace penstock
