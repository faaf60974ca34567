#include "forest.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <utility>

namespace penstock {
namespace {

constexpr int32_t features_max = 1 << 20;
constexpr int64_t cells_max = int64_t{1} << 28;  // 2 GiB of float64

void require(bool ok, const char* what) {
  if (!ok) throw std::invalid_argument(std::string("forest: ") + what);
}

void require_finite(std::span<const double> values, const char* what) {
  require(std::all_of(values.begin(), values.end(), [](double v) { return std::isfinite(v); }), what);
}

void check_sets(const Forest& forest) {
  const auto offsets = forest.set_offsets;
  require(!offsets.empty() && offsets.front() == 0 && std::is_sorted(offsets.begin(), offsets.end()) &&
              offsets.back() == static_cast<int64_t>(forest.set_values.size()),
          "set_offsets does not part set_values");
  for (float member : forest.set_values) require(!std::isnan(member), "a set holds NaN");
  const auto members = forest.set_values.begin();
  for (size_t s = 0; s + 1 < offsets.size(); ++s)
    require(std::is_sorted(members + offsets[s], members + offsets[s + 1]), "a set is not sorted");
}

void check_trees(const Forest& forest) {
  const auto n = static_cast<int32_t>(forest.feature.size());
  std::vector<uint8_t> seen(n, 0);
  int64_t cells = 0;  // of leaves by outputs
  std::vector<std::pair<int32_t, int32_t>> stack;
  for (int32_t root : forest.roots) {
    require(root >= 0 && root < n, "a root is not there");
    stack.assign(1, {root, 0});
    while (!stack.empty()) {
      const auto [node, depth] = stack.back();
      stack.pop_back();
      require(!seen[node], "a node has two parents, or a path is a circle");
      seen[node] = 1;
      require(depth <= depth_max, "a path is too long");
      if (forest.leaf[node] >= 0) {
        cells += forest.outputs;
        require(cells <= cells_max, "it has too many leaves and outputs");
        continue;
      }
      stack.emplace_back(forest.no[node], depth + 1);
      stack.emplace_back(forest.yes[node], depth + 1);
    }
  }
}

}  // namespace

void Forest::check() const {
  require(features > 0 && features <= features_max && outputs > 0,
          "it has no outputs, or no number of features that makes sense");
  const size_t n = feature.size();
  require(n <= INT32_MAX, "it has too many nodes");
  require(base_values.size() == static_cast<size_t>(outputs), "one base value belongs to each output");
  require(leaf_values.size() % outputs == 0, "leaf_values is no (leaves, outputs) array");
  for (size_t length : {threshold.size(), set_index.size(), yes.size(), no.size(), missing_yes.size(), leaf.size()})
    require(length == n, "the node arrays differ in length");
  require_finite(leaf_values, "a leaf value is not finite");
  require_finite(base_values, "a base value is not finite");
  check_sets(*this);
  const auto leaves = static_cast<int64_t>(leaf_values.size()) / outputs, sets = static_cast<int64_t>(set_offsets.size()) - 1;
  for (size_t i = 0; i < n; ++i) {
    require(leaf[i] < leaves, "a leaf has no value");
    if (leaf[i] >= 0) continue;
    require(feature[i] >= 0 && feature[i] < features, "a node tests a feature that is not there");
    require(yes[i] >= 0 && static_cast<size_t>(yes[i]) < n && no[i] >= 0 && static_cast<size_t>(no[i]) < n,
            "a child is not there");
    require(set_index[i] < sets, "a set is not there");
    require(set_index[i] >= 0 || !std::isnan(threshold[i]), "a threshold is NaN");
    require(missing_yes[i] <= 1, "missing_yes is neither 0 nor 1");
  }
  check_trees(*this);
}

bool Forest::passes(int32_t node, float x) const {
  if (std::isnan(x)) return missing_yes[node] != 0;
  const int32_t set = set_index[node];
  if (set < 0) return x <= threshold[node];
  return std::binary_search(set_values.begin() + set_offsets[set], set_values.begin() + set_offsets[set + 1], x);
}

int32_t Forest::leaf_of(int32_t root, const float* row) const {
  int32_t node = root;
  while (leaf[node] < 0) node = passes(node, row[feature[node]]) ? yes[node] : no[node];
  return leaf[node];
}

Tree unfold(const Forest& forest, int32_t root) {
  Tree tree;
  struct Visit {
    int32_t node, above, level, distinct;
    uint8_t side;
    bool leaving;  // its subtree is done: its feature is no longer above
  };
  std::vector<Visit> stack{{root, -1, 0, 0, 0, false}};
  struct Last {
    int32_t place;
    uint8_t side;  // of the part of the tree that is being visited
  };
  std::unordered_map<int32_t, std::vector<Last>> above;  // by feature, the tests on the way to here
  while (!stack.empty()) {
    const Visit at = stack.back();
    stack.pop_back();
    if (at.leaving) {
      above[forest.feature[at.node]].pop_back();
      continue;
    }
    if (at.above >= 0) {
      const int32_t child = forest.leaf[at.node] >= 0 ? ~tree.leaves() : tree.places();
      (at.side ? tree.yes : tree.no)[at.above] = child;
      above[forest.feature[tree.node[at.above]]].back().side = at.side;
    }
    if (forest.leaf[at.node] >= 0) {
      tree.depth = std::max(tree.depth, at.level);
      tree.distinct_max = std::max(tree.distinct_max, at.distinct);
      tree.leaf_row.push_back(forest.leaf[at.node]);
      continue;
    }
    const int32_t place = tree.places();
    auto& same = above[forest.feature[at.node]];
    tree.node.push_back(at.node);
    tree.yes.push_back(0);
    tree.no.push_back(0);
    tree.above.push_back(at.above);
    tree.side.push_back(at.side);
    tree.level.push_back(at.level);
    tree.earlier.push_back(same.empty() ? -1 : same.back().place);
    tree.earlier_side.push_back(same.empty() ? 0 : same.back().side);
    const int32_t distinct = at.distinct + (same.empty() ? 1 : 0);
    same.push_back({place, 1});
    stack.push_back({at.node, -1, 0, 0, 0, true});
    stack.push_back({forest.no[at.node], place, at.level + 1, distinct, 0, false});
    stack.push_back({forest.yes[at.node], place, at.level + 1, distinct, 1, false});
  }
  const auto fit = [](auto&... arrays) { (arrays.shrink_to_fit(), ...); };
  fit(tree.node, tree.yes, tree.no, tree.above, tree.side, tree.level, tree.earlier, tree.earlier_side, tree.leaf_row);
  return tree;
}

}  // namespace penstock
