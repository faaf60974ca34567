#include "prepared.h"

#include <algorithm>
#include <cmath>

namespace penstock {
namespace {

constexpr float codes_max = 1 << 16;

}  // namespace

Prepared::Prepared(Forest checked) : forest(std::move(checked)) {
  forest.check();
  trees.reserve(forest.roots.size());
  for (int32_t root : forest.roots) trees.push_back(unfold(forest, root));
  std::vector<int32_t> slot(forest.features, -1);
  for (const Tree& tree : trees)
    for (int32_t node : tree.node) slot[forest.feature[node]] = 0;
  for (int32_t f = 0; f < forest.features; ++f)
    if (slot[f] == 0) {
      slot[f] = slots();
      features.push_back(f);
    }

  const auto sets = static_cast<int32_t>(forest.set_offsets.size()) - 1;
  std::vector<int64_t> first_word(sets, -1);
  for (int32_t s = 0; s < sets; ++s) {
    const float* begin = forest.set_values.data() + forest.set_offsets[s];
    const int32_t count = forest.set_offsets[s + 1] - forest.set_offsets[s];
    const bool codes =
        count > 0 && std::all_of(begin, begin + count, [](float v) { return v >= 0 && v < codes_max && v == std::floor(v); });
    const int32_t bit_count = codes ? static_cast<int32_t>(begin[count - 1]) + 1 : 0;
    sets_.push_back({begin, nullptr, count, bit_count});
    if (!codes) continue;
    first_word[s] = static_cast<int64_t>(bits_.size());
    bits_.resize(bits_.size() + (bit_count + 31) / 32, 0);
    for (int32_t i = 0; i < count; ++i) {
      const auto code = static_cast<int32_t>(begin[i]);
      bits_[first_word[s] + code / 32] |= 1u << (code % 32);
    }
  }
  for (int32_t s = 0; s < sets; ++s)
    if (first_word[s] >= 0) sets_[s].bits = bits_.data() + first_word[s];

  first_test.push_back(0);
  size_t places = 0;
  for (const Tree& tree : trees) places += tree.node.size();
  tests.reserve(places);
  for (const Tree& tree : trees) {
    for (int32_t node : tree.node)
      tests.push_back({slot[forest.feature[node]], forest.threshold[node],
                       forest.set_index[node] < 0 ? -1 : forest.set_index[node], forest.missing_yes[node] != 0});
    first_test.push_back(static_cast<int64_t>(tests.size()));
    places_max = std::max(places_max, tree.places());
    depth_most = std::max(depth_most, tree.depth);
    std::vector<int32_t> filled;
    for (int32_t k = 0; k < forest.outputs; ++k)
      if (std::any_of(tree.leaf_row.begin(), tree.leaf_row.end(), [&](int32_t row) { return forest.value(row)[k] != 0; }))
        filled.push_back(k);
    outputs.push_back(std::move(filled));
  }
}

void Prepared::columns(const float* rows, int64_t count, int64_t begin, float* x) const {
  const float* from[block];
  for (int c = 0; c < block; ++c) from[c] = rows + std::min(begin + c, count - 1) * forest.features;
  for (const int32_t f : features) {
    for (int c = 0; c < block; ++c) x[c] = from[c][f];
    x += block;
  }
}

void Prepared::follow(size_t t, uint64_t* masks) const {
  const Tree& tree = trees[t];
  uint64_t* passed = masks + tree.places();
  for (int32_t i = 0; i < tree.places(); ++i) {
    const int32_t earlier = tree.earlier[i];
    const uint64_t before = earlier < 0 ? ~uint64_t{0} : passed[2 * earlier + tree.earlier_side[i]];
    passed[2 * i] = before & ~masks[i];
    passed[2 * i + 1] = before & masks[i];
  }
}

}  // namespace penstock
