#include "forest.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

namespace penstock {
namespace {

void require(bool ok, const char* what) {
  if (!ok) throw std::invalid_argument(std::string("forest: ") + what);
}

}  // namespace

void Forest::check() {
  const int64_t n = static_cast<int64_t>(feature.size());
  require(features > 0 && outputs > 0, "it needs features and outputs");
  require(base_values.size() == static_cast<size_t>(outputs), "one base value for each output");
  require(leaf_values.size() % outputs == 0, "leaf_values is no (leaves, outputs) array");
  const int64_t leaves = static_cast<int64_t>(leaf_values.size()) / outputs;
  for (size_t length : {threshold.size(), set_index.size(), yes.size(), no.size(), missing_yes.size(), leaf.size()})
    require(static_cast<int64_t>(length) == n, "node arrays differ in length");
  require(!set_offsets.empty() && set_offsets.front() == 0 && set_offsets.back() == static_cast<int32_t>(set_values.size()),
          "set_offsets does not span set_values");
  require(std::is_sorted(set_offsets.begin(), set_offsets.end()), "set_offsets descends");
  const int32_t sets = static_cast<int32_t>(set_offsets.size()) - 1;
  for (int32_t s = 0; s < sets; ++s)
    require(std::is_sorted(set_values.begin() + set_offsets[s], set_values.begin() + set_offsets[s + 1]), "a set is not sorted");
  for (float member : set_values) require(!std::isnan(member), "a set holds NaN");
  for (int64_t i = 0; i < n; ++i) {
    if (leaf[i] >= 0) {
      require(leaf[i] < leaves, "a leaf has no value");
      continue;
    }
    require(feature[i] >= 0 && feature[i] < features, "a node tests a feature that is not there");
    require(yes[i] >= 0 && yes[i] < n && no[i] >= 0 && no[i] < n, "a child is not there");
    require(set_index[i] < sets, "a set is not there");
    require(set_index[i] >= 0 || !std::isnan(threshold[i]), "a threshold is NaN");
    require(missing_yes[i] <= 1, "missing_yes is 0 or 1");
  }
  std::vector<uint8_t> seen(n, 0);
  std::vector<std::pair<int32_t, int32_t>> stack;
  for (int32_t root : roots) {
    require(root >= 0 && root < n, "a root is not there");
    stack.assign(1, {root, 0});
    while (!stack.empty()) {
      const auto [node, depth] = stack.back();
      stack.pop_back();
      require(!seen[node], "a node has two parents, or a path is a circle");
      seen[node] = 1;
      require(depth <= depth_max, "a path is too long");
      if (leaf[node] < 0) {
        stack.push_back({no[node], depth + 1});
        stack.push_back({yes[node], depth + 1});
      }
    }
  }
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
  tree.root = root;
  struct Visit {
    int32_t node, parent;
    uint8_t side;
    int32_t depth;
  };
  std::vector<Visit> stack{{root, -1, 0, 0}};
  std::vector<Tree::Test> path;
  while (!stack.empty()) {
    const Visit at = stack.back();
    stack.pop_back();
    if (forest.leaf[at.node] < 0) {
      const int32_t place = static_cast<int32_t>(tree.inner.size());
      tree.inner.push_back(at.node);
      tree.inner_depth.push_back(at.depth);
      tree.inner_parent.push_back(at.parent);
      tree.inner_side.push_back(at.side);
      tree.inner_size.push_back(1);
      stack.push_back({forest.no[at.node], place, 0, at.depth + 1});
      stack.push_back({forest.yes[at.node], place, 1, at.depth + 1});
      continue;
    }
    tree.depth = std::max(tree.depth, at.depth);
    path.clear();
    for (int32_t above = at.parent, side = at.side; above >= 0; side = tree.inner_side[above], above = tree.inner_parent[above])
      path.push_back({above, static_cast<uint8_t>(side)});
    std::stable_sort(path.begin(), path.end(), [&](const Tree::Test& a, const Tree::Test& b) {
      return forest.feature[tree.inner[a.inner]] < forest.feature[tree.inner[b.inner]];
    });
    Tree::Leaf leaf{forest.leaf[at.node], static_cast<int32_t>(tree.elements.size()), 0};
    for (const Tree::Test& test : path) {
      const int32_t feature = forest.feature[tree.inner[test.inner]];
      if (leaf.element_count == 0 || tree.elements.back().feature != feature) {
        tree.elements.push_back({feature, static_cast<int32_t>(tree.tests.size()), 0});
        ++leaf.element_count;
      }
      tree.tests.push_back(test);
      ++tree.elements.back().test_count;
    }
    tree.leaves.push_back(leaf);
    tree.leaf_parent.push_back(at.parent);
    tree.leaf_side.push_back(at.side);
  }
  for (size_t i = tree.inner.size(); i-- > 1;)
    tree.inner_size[tree.inner_parent[i]] += tree.inner_size[i];
  return tree;
}

}  // namespace penstock
