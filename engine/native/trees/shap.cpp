#include "shap.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <map>
#include <numeric>
#include <stdexcept>
#include <thread>

namespace penstock {
namespace {

constexpr int bits_least = 7, bits_most = 10;
constexpr int trees_between_flushes = 4;  // float32 sums of at most this many trees' rows, then on in float64

// Nodes and weights of Gauss-Legendre quadrature on [0, 1], by Newton's iteration on the Legendre polynomial.
void gauss_legendre(int count, std::vector<double>& nodes, std::vector<double>& weights) {
  nodes.assign(count, 0);
  weights.assign(count, 0);
  for (int i = 0; i < count; ++i) {
    long double x = std::cos(3.14159265358979323846L * (i + 0.75L) / (count + 0.5L)), slope = 1;
    for (int round = 0; round < 100; ++round) {
      long double p0 = 1, p1 = x;
      for (int n = 2; n <= count; ++n) {
        const long double p2 = ((2 * n - 1) * x * p1 - (n - 1) * p0) / n;
        p0 = p1;
        p1 = p2;
      }
      if (count == 1) { p0 = 1; p1 = x; }
      slope = count * (x * p1 - p0) / (x * x - 1);
      const long double step = p1 / slope;
      x -= step;
      if (std::fabs(static_cast<double>(step)) < 1e-19) break;
    }
    nodes[i] = static_cast<double>((1 - x) / 2);
    weights[i] = static_cast<double>(1 / ((1 - x * x) * slope * slope));
  }
}

template <typename Work>
void in_parallel(int64_t items, int threads, const Work& work) {
  if (threads <= 1 || items <= 1) {
    for (int64_t i = 0; i < items; ++i) work(i);
    return;
  }
  std::atomic<int64_t> next{0};
  std::vector<std::thread> crew;
  for (int t = 0; t < std::min<int64_t>(threads, items); ++t)
    crew.emplace_back([&] {
      for (int64_t i; (i = next.fetch_add(1)) < items;) work(i);
    });
  for (auto& one : crew) one.join();
}

}  // namespace

struct Scratch {
  AlignedFloats acc;
  std::vector<float> columns, o_f, prefix_f, phi_f;
  std::vector<double> o_d, prefix_d, phi_d, sums, by_column, row_sums;
  std::vector<uint8_t> answers;
};

Shap::Shap(Forest forest, std::vector<double> share, std::vector<float> background, int64_t table_bytes_max, int threads)
    : forest_(std::move(forest)), kernels_(best_kernels()) {
  forest_.check();
  from_background_ = share.empty();
  if (!from_background_ && share.size() != forest_.feature.size()) throw std::invalid_argument("one share for each node");
  if (from_background_ && (background.empty() || background.size() % forest_.features))
    throw std::invalid_argument("the background is no (rows, features) array");
  predictor_ = std::make_unique<Predictor>(forest_);
  test_data_ = std::make_unique<Tests>(forest_);
  width_ = (forest_.features * forest_.outputs + 15) / 16 * 16;
  background_count_ = static_cast<int64_t>(background.size()) / forest_.features;
  expected_ = forest_.base_values;
  size_t elements_max = 1;
  plans_.resize(forest_.roots.size());
  for (size_t i = 0; i < plans_.size(); ++i) {
    TreePlan& plan = plans_[i];
    plan.tree = unfold(forest_, forest_.roots[i]);
    for (int32_t node : plan.tree.inner) plan.walked |= !test_data_->fits(node);
    for (const auto& leaf : plan.tree.leaves) elements_max = std::max<size_t>(elements_max, leaf.element_count);
  }
  nodes_.resize(elements_max / 2 + 2);
  node_weights_.resize(nodes_.size());
  for (size_t q = 1; q < nodes_.size(); ++q) gauss_legendre(static_cast<int>(q), nodes_[q], node_weights_[q]);
  for (TreePlan& plan : plans_) {
    plan.first_test = static_cast<int32_t>(tests_.size());
    for (int32_t node : plan.tree.inner) tests_.push_back(test_data_->of(node));
  }
  in_parallel(static_cast<int64_t>(plans_.size()), threads, [&](int64_t i) {
    TreePlan& plan = plans_[i];
    if (from_background_) {
      note_background(plan, background);
      return;
    }
    for (const auto& element : plan.tree.elements) {
      double z = 1;
      for (int32_t t = 0; t < element.test_count; ++t) {
        const auto& test = plan.tree.tests[element.first_test + t];
        const int32_t node = plan.tree.inner[test.inner];
        z *= share[test.wanted ? forest_.yes[node] : forest_.no[node]];
      }
      plan.z.push_back(z);
    }
  });
  for (const TreePlan& plan : plans_)
    for (size_t l = 0; l < plan.tree.leaves.size(); ++l) {
      const auto& leaf = plan.tree.leaves[l];
      double weight = 1;
      if (from_background_) {
        weight = 0;
        for (size_t p = 0; p < plan.weights[l].size(); ++p) {
          const uint8_t* pattern = plan.patterns[l].data() + p * leaf.element_count;
          if (std::all_of(pattern, pattern + leaf.element_count, [](uint8_t z) { return z; })) weight += plan.weights[l][p];
        }
      } else {
        for (int32_t e = 0; e < leaf.element_count; ++e) weight *= plan.z[leaf.first_element + e];
      }
      for (int32_t k = 0; k < forest_.outputs; ++k) expected_[k] += weight * forest_.value(leaf.row)[k];
    }
  plan_tables(table_bytes_max);
  in_parallel(static_cast<int64_t>(plans_.size()), threads, [&](int64_t i) {
    if (tabled_[i]) fill_tables(plans_[i]);
  });
}

// For each leaf, which of its elements each background row satisfies, and how often.
void Shap::note_background(TreePlan& plan, const std::vector<float>& background) {
  const Tree& tree = plan.tree;
  plan.patterns.resize(tree.leaves.size());
  plan.weights.resize(tree.leaves.size());
  std::vector<uint8_t> answers(tree.inner.size() * background_count_);
  for (int64_t b = 0; b < background_count_; ++b)
    for (size_t i = 0; i < tree.inner.size(); ++i)
      answers[b * tree.inner.size() + i] =
          forest_.passes(tree.inner[i], background[b * forest_.features + forest_.feature[tree.inner[i]]]);
  std::map<std::vector<uint8_t>, int64_t> counts;
  std::vector<uint8_t> pattern;
  for (size_t l = 0; l < tree.leaves.size(); ++l) {
    const auto& leaf = tree.leaves[l];
    counts.clear();
    for (int64_t b = 0; b < background_count_; ++b) {
      pattern.assign(leaf.element_count, 1);
      for (int32_t e = 0; e < leaf.element_count; ++e) {
        const auto& element = tree.elements[leaf.first_element + e];
        for (int32_t t = 0; t < element.test_count; ++t) {
          const auto& test = tree.tests[element.first_test + t];
          pattern[e] &= answers[b * tree.inner.size() + test.inner] == test.wanted;
        }
      }
      ++counts[pattern];
    }
    for (const auto& [each, count] : counts) {
      plan.patterns[l].insert(plan.patterns[l].end(), each.begin(), each.end());
      plan.weights[l].push_back(static_cast<double>(count) / static_cast<double>(background_count_));
    }
  }
}

// Cuts each tree into groups of few tests, smallest trees first, as long as the budget lasts.
void Shap::plan_tables(int64_t table_bytes_max) {
  tabled_.assign(plans_.size(), 0);
  struct Cut {
    size_t tree;
    std::vector<int32_t> roots;
    int64_t floats;
  };
  std::vector<Cut> cuts;
  for (size_t i = 0; i < plans_.size(); ++i) {
    const Tree& tree = plans_[i].tree;
    const int bits = std::max(bits_least, tree.depth);
    if (tree.depth > bits_most || plans_[i].walked || tree.inner.empty()) continue;
    Cut cut{i, {}, 0};
    for (int32_t at = 0; at < static_cast<int32_t>(tree.inner.size());) {
      const int32_t needed = tree.inner_depth[at] + tree.inner_size[at];
      if (needed <= bits) {
        cut.roots.push_back(at);
        cut.floats += (int64_t{1} << needed) * width_;
        at += tree.inner_size[at];  // preorder: past the whole subtree
      } else {
        ++at;
      }
    }
    // A split node with a leaf for a child leaves that leaf outside of every group below: it becomes a group of its path alone.
    for (size_t l = 0; l < tree.leaves.size(); ++l) {
      const int32_t parent = tree.leaf_parent[l];
      if (tree.inner_depth[parent] + tree.inner_size[parent] <= bits) continue;
      bool inside = false;
      for (int32_t above = parent; above >= 0 && !inside; above = tree.inner_parent[above])
        inside = tree.inner_depth[above] + tree.inner_size[above] <= bits;
      if (inside) continue;
      cut.roots.push_back(-1 - static_cast<int32_t>(l));
      cut.floats += (int64_t{1} << (tree.inner_depth[parent] + 1)) * width_;
    }
    cuts.push_back(std::move(cut));
  }
  std::stable_sort(cuts.begin(), cuts.end(), [](const Cut& a, const Cut& b) { return a.floats < b.floats; });
  int64_t total = 0;
  for (const Cut& cut : cuts) {
    if ((total + cut.floats) * static_cast<int64_t>(sizeof(float)) > table_bytes_max) break;
    const Tree& tree = plans_[cut.tree].tree;
    TreePlan& plan = plans_[cut.tree];
    plan.first_group = static_cast<int32_t>(groups_.size());
    for (int32_t root : cut.roots) {
      Group group{static_cast<int32_t>(bit_places_.size()), 0, total};
      const int32_t from = root >= 0 ? root : tree.leaf_parent[-1 - root];
      for (int32_t above = root >= 0 ? tree.inner_parent[from] : from; above >= 0; above = tree.inner_parent[above])
        bit_places_.push_back(above);
      if (root >= 0)
        for (int32_t i = 0; i < tree.inner_size[root]; ++i) bit_places_.push_back(root + i);
      group.bits = static_cast<int32_t>(bit_places_.size()) - group.first_bit;
      total += (int64_t{1} << group.bits) * width_;
      groups_.push_back(group);
    }
    plan.group_count = static_cast<int32_t>(groups_.size()) - plan.first_group;
    tabled_[cut.tree] = 1;
  }
  tables_.assign(total, 0.0f);
}

// Shapley values of a leaf of value 1 for a row that satisfies the elements whose bit is set.
std::vector<double> Shap::leaf_shapley(const TreePlan& plan, size_t l, uint64_t satisfied) const {
  const auto& leaf = plan.tree.leaves[l];
  const int32_t count = leaf.element_count;
  std::vector<double> phi(count, 0.0);
  if (from_background_) {
    // Against one background row: of its a features that only the row satisfies and b that only the background does, each
    // of the first gets (a-1)! b! / (a+b)!, each of the second minus a! (b-1)! / (a+b)!; a feature of neither ends the game.
    for (size_t p = 0; p < plan.weights[l].size(); ++p) {
      const uint8_t* z = plan.patterns[l].data() + p * count;
      int a = 0, b = 0;
      bool dead = false;
      for (int32_t k = 0; k < count; ++k) {
        const bool o = satisfied >> k & 1;
        dead |= !o && !z[k];
        a += o && !z[k];
        b += !o && z[k];
      }
      if (dead || a + b == 0) continue;
      double choose = 1;  // (a+b)! / (a! b!)
      for (int i = 1; i <= b; ++i) choose = choose * (a + i) / i;
      for (int32_t k = 0; k < count; ++k) {
        const bool o = satisfied >> k & 1;
        if (o && !z[k]) phi[k] += plan.weights[l][p] / (choose * a);
        if (!o && z[k]) phi[k] -= plan.weights[l][p] / (choose * b);
      }
    }
    return phi;
  }
  const double* z = plan.z.data() + leaf.first_element;
  const int nodes = (count + 1) / 2;
  std::vector<double> prefix(count + 1);
  for (int q = 0; q < nodes; ++q) {
    const double t = nodes_[nodes][q];
    prefix[0] = node_weights_[nodes][q];
    for (int32_t k = 0; k < count; ++k) prefix[k + 1] = prefix[k] * (z[k] * (1 - t) + (satisfied >> k & 1 ? t : 0.0));
    double suffix = 1;
    for (int32_t k = count; k-- > 0;) {
      phi[k] += prefix[k] * suffix;
      suffix *= z[k] * (1 - t) + (satisfied >> k & 1 ? t : 0.0);
    }
  }
  for (int32_t k = 0; k < count; ++k) phi[k] *= (satisfied >> k & 1 ? 1.0 : 0.0) - z[k];
  return phi;
}

void Shap::fill_tables(const TreePlan& plan) {
  const Tree& tree = plan.tree;
  const int32_t outputs = forest_.outputs;
  std::vector<double> sums;
  std::vector<int32_t> bit_of(tree.inner.size(), -1);
  for (int32_t g = plan.first_group; g < plan.first_group + plan.group_count; ++g) {
    const Group& group = groups_[g];
    std::fill(bit_of.begin(), bit_of.end(), -1);
    for (int32_t b = 0; b < group.bits; ++b) bit_of[bit_places_[group.first_bit + b]] = b;
    const int64_t rows = int64_t{1} << group.bits;
    sums.assign(rows * width_, 0.0);
    for (size_t l = 0; l < tree.leaves.size(); ++l) {
      const auto& leaf = tree.leaves[l];
      // The group's own leaves: those whose whole path is numbered and, for a group of one leaf, that leaf.
      bool mine = true;
      int32_t tests = 0;
      for (int32_t at = tree.leaf_parent[l]; at >= 0 && mine; at = tree.inner_parent[at], ++tests) mine = bit_of[at] >= 0;
      if (!mine) continue;
      const int32_t deepest = bit_places_[group.first_bit];
      const bool lone = tests == group.bits && tree.leaf_parent[l] == deepest && tree.inner_depth[deepest] + 1 == group.bits;
      const bool whole = tree.inner_size[tree.leaf_parent[l]] + tree.inner_depth[tree.leaf_parent[l]] <= group.bits;
      if (!whole && !lone) continue;
      std::vector<std::vector<double>> known(size_t{1} << leaf.element_count);
      const double* value = forest_.value(leaf.row);
      for (int64_t number = 0; number < rows; ++number) {
        uint64_t satisfied = 0;
        for (int32_t e = 0; e < leaf.element_count; ++e) {
          const auto& element = tree.elements[leaf.first_element + e];
          bool all = true;
          for (int32_t t = 0; t < element.test_count; ++t) {
            const auto& test = tree.tests[element.first_test + t];
            all &= (number >> bit_of[test.inner] & 1) == test.wanted;
          }
          satisfied |= static_cast<uint64_t>(all) << e;
        }
        if (known[satisfied].empty()) known[satisfied] = leaf_shapley(plan, l, satisfied);
        for (int32_t e = 0; e < leaf.element_count; ++e) {
          const int32_t feature = tree.elements[leaf.first_element + e].feature;
          for (int32_t k = 0; k < outputs; ++k)
            sums[number * width_ + feature * outputs + k] += known[satisfied][e] * value[k];
        }
      }
    }
    for (int64_t i = 0; i < rows * width_; ++i) tables_[group.table + i] = static_cast<float>(sums[i]);
  }
}

template <typename T>
void Shap::add_quadrature(const TreePlan& plan, const uint8_t* answers, Scratch& scratch, double* by_column) const {
  constexpr bool single = sizeof(T) == sizeof(float);
  auto& o_all = [&]() -> std::vector<T>& {
    if constexpr (single) return scratch.o_f; else return scratch.o_d;
  }();
  auto& prefix = [&]() -> std::vector<T>& {
    if constexpr (single) return scratch.prefix_f; else return scratch.prefix_d;
  }();
  auto& phi = [&]() -> std::vector<T>& {
    if constexpr (single) return scratch.phi_f; else return scratch.phi_d;
  }();
  const int32_t outputs = forest_.outputs;
  for (const auto& leaf : plan.tree.leaves) {
    const int32_t count = leaf.element_count;
    if (count == 0) continue;
    const size_t needed = static_cast<size_t>(count) * block;
    if (o_all.size() < needed) { o_all.resize(needed); prefix.resize(needed); phi.resize(needed); }
    T* o = o_all.data();
    for (int32_t e = 0; e < count; ++e) {
      const auto& element = plan.tree.elements[leaf.first_element + e];
      uint8_t all[block];
      std::memset(all, 1, block);
      for (int32_t t = 0; t < element.test_count; ++t) {
        const auto& test = plan.tree.tests[element.first_test + t];
        const uint8_t* answer = answers + static_cast<int64_t>(test.inner) * block;
        const uint8_t flip = test.wanted ^ 1;
        for (int c = 0; c < block; ++c) all[c] &= answer[c] ^ flip;
      }
      for (int c = 0; c < block; ++c) o[e * block + c] = static_cast<T>(all[c]);
    }
    const int nodes = (count + 1) / 2;
    const double* z = plan.z.data() + leaf.first_element;
    if constexpr (single)
      kernels_.quadrature_f(o, z, count, nodes_[nodes].data(), node_weights_[nodes].data(), nodes, prefix.data(), phi.data());
    else
      kernels_.quadrature_d(o, z, count, nodes_[nodes].data(), node_weights_[nodes].data(), nodes, prefix.data(), phi.data());
    const double* value = forest_.value(leaf.row);
    for (int32_t e = 0; e < count; ++e) {
      const int32_t feature = plan.tree.elements[leaf.first_element + e].feature;
      for (int32_t k = 0; k < outputs; ++k) {
        double* out = by_column + (static_cast<int64_t>(feature) * outputs + k) * block;
        const double scale = value[k];
        for (int c = 0; c < block; ++c)
          out[c] += scale * (static_cast<double>(o[e * block + c]) - z[e]) * static_cast<double>(phi[e * block + c]);
      }
    }
  }
}

// Trees that have no tables, relative to background rows: exact, and slower by the number of their different answers.
void Shap::add_background(const TreePlan& plan, const uint8_t* answers, double* by_column) const {
  const int32_t outputs = forest_.outputs;
  std::vector<uint8_t> o;
  for (size_t l = 0; l < plan.tree.leaves.size(); ++l) {
    const auto& leaf = plan.tree.leaves[l];
    const int32_t count = leaf.element_count;
    o.assign(static_cast<size_t>(count) * block, 1);
    for (int32_t e = 0; e < count; ++e) {
      const auto& element = plan.tree.elements[leaf.first_element + e];
      for (int32_t t = 0; t < element.test_count; ++t) {
        const auto& test = plan.tree.tests[element.first_test + t];
        for (int c = 0; c < block; ++c) o[e * block + c] &= answers[static_cast<int64_t>(test.inner) * block + c] == test.wanted;
      }
    }
    const double* value = forest_.value(leaf.row);
    for (size_t p = 0; p < plan.weights[l].size(); ++p) {
      const uint8_t* z = plan.patterns[l].data() + p * count;
      for (int c = 0; c < block; ++c) {
        int a = 0, b = 0;
        bool dead = false;
        for (int32_t e = 0; e < count; ++e) {
          const bool own = o[e * block + c];
          dead |= !own && !z[e];
          a += own && !z[e];
          b += !own && z[e];
        }
        if (dead || a + b == 0) continue;
        double choose = 1;
        for (int i = 1; i <= b; ++i) choose = choose * (a + i) / i;
        for (int32_t e = 0; e < count; ++e) {
          const bool own = o[e * block + c];
          if (own == static_cast<bool>(z[e])) continue;
          const double part = own ? plan.weights[l][p] / (choose * a) : -plan.weights[l][p] / (choose * b);
          const int32_t feature = plan.tree.elements[leaf.first_element + e].feature;
          for (int32_t k = 0; k < outputs; ++k)
            by_column[(static_cast<int64_t>(feature) * outputs + k) * block + c] += part * value[k];
        }
      }
    }
  }
}

void Shap::explain_block(const float* rows, int64_t valid, const float* columns, bool exact, double* values, double* scores,
                         Scratch& scratch) const {
  const int32_t cells = forest_.features * forest_.outputs;
  scratch.acc.assign(static_cast<size_t>(block) * width_, 0.0f);
  scratch.row_sums.assign(static_cast<size_t>(block) * width_, 0.0);
  scratch.by_column.assign(static_cast<size_t>(cells) * block, 0.0);
  const auto flush = [&] {
    for (size_t i = 0; i < scratch.acc.size(); ++i) {
      scratch.row_sums[i] += static_cast<double>(scratch.acc[i]);
      scratch.acc[i] = 0.0f;
    }
  };
  int since_flush = 0;
  bool some_by_column = false;
  for (size_t i = 0; i < plans_.size(); ++i) {
    const TreePlan& plan = plans_[i];
    const int32_t inner = static_cast<int32_t>(plan.tree.inner.size());
    if (inner == 0) continue;
    if (scratch.answers.size() < static_cast<size_t>(inner) * block) scratch.answers.resize(static_cast<size_t>(inner) * block);
    uint8_t* answers = scratch.answers.data();
    if (plan.walked) {
      for (int32_t n = 0; n < inner; ++n)
        for (int c = 0; c < block; ++c)
          answers[static_cast<int64_t>(n) * block + c] =
              forest_.passes(plan.tree.inner[n], columns[static_cast<int64_t>(forest_.feature[plan.tree.inner[n]]) * block + c]);
    } else {
      kernels_.decide(tests_.data() + plan.first_test, inner, test_data_->bitmaps(), columns, answers);
    }
    if (tabled_[i] && !exact) {
      kernels_.add_rows(groups_.data() + plan.first_group, plan.group_count, bit_places_.data(), answers, tables_.data(), width_,
                        scratch.acc.data());
      if (++since_flush == trees_between_flushes) {
        flush();
        since_flush = 0;
      }
      continue;
    }
    some_by_column = true;
    if (from_background_) add_background(plan, answers, scratch.by_column.data());
    else if (exact) add_quadrature<double>(plan, answers, scratch, scratch.by_column.data());
    else add_quadrature<float>(plan, answers, scratch, scratch.by_column.data());
  }
  if (since_flush) flush();
  for (int64_t c = 0; c < valid; ++c) {
    const double* sums = scratch.row_sums.data() + c * width_;
    double* out = values + c * cells;
    for (int32_t j = 0; j < cells; ++j) out[j] = sums[j];
    if (some_by_column)
      for (int32_t j = 0; j < cells; ++j) out[j] += scratch.by_column[static_cast<int64_t>(j) * block + c];
  }
  scratch.sums.assign(static_cast<size_t>(block) * forest_.outputs, 0.0);
  predictor_->add_block(columns, rows, valid, scratch.sums.data());
  for (int64_t c = 0; c < valid; ++c)
    for (int32_t k = 0; k < forest_.outputs; ++k)
      scores[c * forest_.outputs + k] = forest_.base_values[k] + scratch.sums[c * forest_.outputs + k];
}

void Shap::explain(const float* rows, int64_t count, bool exact, int threads, double* values, double* scores) const {
  const int64_t blocks = (count + block - 1) / block;
  const int32_t cells = forest_.features * forest_.outputs;
  in_parallel(blocks, threads, [&](int64_t i) {
    static thread_local Scratch scratch;
    const int64_t begin = i * block, valid = std::min<int64_t>(block, count - begin);
    scratch.columns.resize(static_cast<size_t>(forest_.features) * block);
    transpose(rows, count, begin, forest_.features, scratch.columns.data());
    explain_block(rows + begin * forest_.features, valid, scratch.columns.data(), exact, values + begin * cells,
                  scores + begin * forest_.outputs, scratch);
  });
}

uint64_t Shap::digest() const {
  uint64_t hash = 14695981039346656037ull;  // FNV-1a over the tables' bytes
  const auto* bytes = reinterpret_cast<const uint8_t*>(tables_.data());
  for (size_t i = 0; i < tables_.size() * sizeof(float); ++i) hash = (hash ^ bytes[i]) * 1099511628211ull;
  return hash;
}

}  // namespace penstock
