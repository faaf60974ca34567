#include "shap.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>
#include <utility>

#include "aligned.h"

namespace penstock {
namespace {

constexpr int blocks_together = 8;           // of rows: a tree's constants and tables are fetched once for all of them
constexpr int float_depth_max = 16;          // deeper trees are computed in float64: float32 products of so many factors drift
constexpr int32_t additions_max = 64;        // to a float32 sum, about; then on in float64
constexpr int32_t shared_bits_max = 7;       // past this the quadrature is faster than tables
constexpr int32_t background_bits_max = 12;  // the quadrature would take a walk for each different answer of it
constexpr int64_t row_step = 16;             // the widest vector
constexpr int64_t table_bytes_most = int64_t{4} << 30;  // LeafTable counts in 32 bits

int points_of(const Tree& tree) { return (tree.distinct_max + 1) / 2; }

}  // namespace

struct Shap::Scratch {
  AlignedVector<float> x, phi, stack_f;
  std::vector<float> constants_f;
  AlignedVector<double> sums, stack_d;
  std::vector<double> scores, constants_d;
  std::vector<uint64_t> masks, live;
  std::vector<std::pair<uint64_t, int64_t>> answers;  // of background rows to a tree's tests, and which row
  std::vector<Part> parts;
  Shares shares;
  int32_t additions = 0;  // to phi

  template <typename T, typename F, typename D>
  auto& of(F Scratch::* f, D Scratch::* d) {
    if constexpr (sizeof(T) == sizeof(float)) return this->*f;
    else return this->*d;
  }
};

Shap::Shap(std::shared_ptr<const Ready> ready, std::span<const double> share, const std::vector<float>& background,
           int64_t table_bytes_max, int threads)
    : ready_(std::move(ready)), prepared_(ready_->prepared), kernels_(best_kernels()), predictor_(ready_->predictor) {
  const auto require = [](bool ok, const char* what) {
    if (!ok) throw std::invalid_argument(std::string("shap: ") + what);
  };
  const Forest& checked = prepared_.forest;
  const auto trees = static_cast<int32_t>(prepared_.trees.size());
  require(table_bytes_max >= 0 && table_bytes_max <= table_bytes_most, "table_bytes_max is not from 0 to 4 GiB");
  require(share.empty() != background.empty(), "give the nodes' shares, or background rows");
  require(background.size() % checked.features == 0, "the background is no (rows, features) array");
  require(share.empty() || share.size() == checked.feature.size(), "one share belongs to each node");
  require(std::all_of(share.begin(), share.end(), [](double s) { return std::isfinite(s) && s >= 0; }),
          "a share is negative or not finite");

  terms_.resize(checked.outputs);
  nodes_.reserve(trees);
  for (int32_t t = 0; t < trees; ++t) {
    nodes_.push_back(path_nodes(prepared_, t));
    rules_.try_emplace(points_of(prepared_.trees[t]), points_of(prepared_.trees[t]));
    const auto& outputs = prepared_.outputs[t];
    for (int32_t o = 0; o < static_cast<int32_t>(outputs.size()); ++o) terms_[outputs[o]].push_back({t, o});
  }
  if (share.empty()) expect_from_background(background, threads);
  else expect_from_shares(share);
  tables_ = std::make_unique<LeafTables>(prepared_, shares_, background_, share.empty() ? background_bits_max : shared_bits_max,
                                         table_bytes_max, threads);
}

void Shap::expect_from_shares(std::span<const double> share) {
  const Forest& forest = prepared_.forest;
  expected_.assign(forest.base_values.begin(), forest.base_values.end());
  for (const Tree& tree : prepared_.trees) {
    Shares shares;
    shares.yes.reserve(tree.node.size());
    shares.no.reserve(tree.node.size());
    for (int32_t node : tree.node) {
      shares.yes.push_back(share[forest.yes[node]]);
      shares.no.push_back(share[forest.no[node]]);
    }
    shares.follow(tree);
    for (int32_t k = 0; k < forest.outputs; ++k) expected_[k] += mean_of(forest, tree, k, shares);
    shares_.push_back(std::move(shares));
  }
}

void Shap::expect_from_background(const std::vector<float>& background, int threads) {
  const int32_t outputs = prepared_.forest.outputs;
  const int64_t rows = static_cast<int64_t>(background.size()) / prepared_.forest.features;
  background_.rows = rows;
  for (int64_t begin = 0; begin < rows; begin += block) {
    background_.columns.emplace_back(static_cast<size_t>(prepared_.slots()) * block);
    prepared_.columns(background.data(), rows, begin, background_.columns.back().data());
  }
  std::vector<double> scores(static_cast<size_t>(rows) * outputs);
  predictor_.predict(background.data(), rows, threads, scores.data());
  expected_.assign(outputs, 0.0);
  for (int64_t r = 0; r < rows; ++r)
    for (int32_t k = 0; k < outputs; ++k) expected_[k] += scores[r * outputs + k] / static_cast<double>(rows);
}

// Background rows that a small tree cannot tell apart count as one.
void Shap::part_background(size_t t, Scratch& scratch) const {
  const int32_t places = prepared_.trees[t].places();
  const double one = 1.0 / static_cast<double>(background_.rows);
  scratch.parts.clear();
  if (places > 64) {
    for (int64_t r = 0; r < background_.rows; ++r) scratch.parts.push_back({r, one});
    return;
  }
  scratch.answers.clear();
  uint64_t masks[64];
  for (int64_t r = 0; r < background_.rows; ++r) {
    if (r % block == 0) prepared_.decide(kernels_, t, background_.columns[r / block].data(), masks);
    uint64_t own = 0;
    for (int32_t i = 0; i < places; ++i) own |= (masks[i] >> (r % block) & 1) << i;
    scratch.answers.emplace_back(own, r);
  }
  std::sort(scratch.answers.begin(), scratch.answers.end());
  for (size_t i = 0; i < scratch.answers.size();) {
    size_t same = i;
    while (same < scratch.answers.size() && scratch.answers[same].first == scratch.answers[i].first) ++same;
    scratch.parts.push_back({scratch.answers[i].second, static_cast<double>(same - i) * one});
    i = same;
  }
}

// So many more numbers have been added to phi, or will be none: where they are many, they go over to the sums.
void Shap::added(int32_t count, int blocks, const int32_t* rows, Scratch& scratch) const {
  scratch.additions += count;
  if (scratch.additions < additions_max) return;
  const int64_t cells = static_cast<int64_t>(prepared_.slots()) * block;
  for (int b = 0; b < blocks; ++b)
    kernels_.flush(scratch.phi.data() + b * cells, scratch.sums.data() + b * cells, prepared_.slots(), rows[b]);
  scratch.additions = 0;
}

// Adds a tree's values of one output to the scratch's sums (float64) or phi (float32).
template <typename T>
void Shap::add_quadrature(const Term& term, int blocks, const int32_t* rows, Scratch& scratch) const {
  const Tree& tree = prepared_.trees[term.tree];
  const int32_t places = tree.places();
  auto& stack = scratch.of<T>(&Scratch::stack_f, &Scratch::stack_d);
  stack.resize(std::max(stack.size(), static_cast<size_t>(2 * tree.depth + 1) * points_max * block));
  scratch.live.resize(std::max(scratch.live.size(), static_cast<size_t>(places)));
  if (!shares_.empty()) {
    walk<T>(term, shares_[term.tree], 1.0, blocks, rows, scratch);
    return;
  }
  part_background(term.tree, scratch);
  Shares& shares = scratch.shares;
  std::vector<uint64_t> masks(places);
  shares.yes.resize(places);
  shares.no.resize(places);
  int64_t decided = -1;
  for (const Part& part : scratch.parts) {
    if (part.row / block != decided) {
      decided = part.row / block;
      prepared_.decide(kernels_, term.tree, background_.columns[decided].data(), masks.data());
    }
    for (int32_t i = 0; i < places; ++i) {
      shares.yes[i] = static_cast<double>(masks[i] >> (part.row % block) & 1);
      shares.no[i] = 1 - shares.yes[i];
    }
    shares.follow(tree);
    walk<T>(term, shares, part.weight, blocks, rows, scratch);
  }
}

template <typename T>
void Shap::walk(const Term& term, const Shares& shares, double weight, int blocks, const int32_t* rows, Scratch& scratch) const {
  const Tree& tree = prepared_.trees[term.tree];
  const int32_t output = prepared_.outputs[term.tree][term.output];
  const int64_t cells = static_cast<int64_t>(prepared_.slots()) * block;
  const GaussLegendre& rule = rules_.at(points_of(tree));
  const int all_points = points_of(tree), passes = (all_points + points_max - 1) / points_max;
  auto& constants = scratch.of<T>(&Scratch::constants_f, &Scratch::constants_d);
  auto& phi = scratch.of<T>(&Scratch::phi, &Scratch::sums);
  for (int pass = 0; pass < passes; ++pass) {
    const int from = all_points * pass / passes, points = all_points * (pass + 1) / passes - from;
    fill_constants(prepared_.forest, tree, output, shares, rule.points.data() + from, points, constants);
    T weights[points_max];
    for (int q = 0; q < points; ++q) weights[q] = static_cast<T>(rule.weights[from + q] * weight);
    for (int b = 0; b < blocks; ++b) {
      const Quadrature<T> work{nodes_[term.tree].data(),
                               constants.data(),
                               weights,
                               points,
                               rows[b],
                               scratch.masks.data() + b * prepared_.mask_cells(),
                               scratch.live.data(),
                               scratch.of<T>(&Scratch::stack_f, &Scratch::stack_d).data(),
                               phi.data() + b * cells};
      if constexpr (sizeof(T) == sizeof(float)) kernels_.quadrature_f(work);
      else kernels_.quadrature_d(work);
    }
    if constexpr (sizeof(T) == sizeof(float)) added(tree.places(), blocks, rows, scratch);
  }
}

void Shap::add_tables(const Term& term, bool exact, int blocks, const int32_t* rows, Scratch& scratch) const {
  const int64_t cells = static_cast<int64_t>(prepared_.slots()) * block;
  for (int b = 0; b < blocks; ++b) prepared_.follow(term.tree, scratch.masks.data() + b * prepared_.mask_cells());
  for (int32_t from = 0, all = tables_->count(term.tree); from < all; from += additions_max) {
    const int32_t count = std::min(additions_max, all - from);
    for (int b = 0; b < blocks; ++b) {
      const uint64_t* masks = scratch.masks.data() + b * prepared_.mask_cells();
      const Lookup work = tables_->look_up(term.tree, term.output, from, count, masks, rows[b]);
      if (exact) kernels_.look_up_exact(work, scratch.sums.data() + b * cells);
      else kernels_.look_up(work, scratch.phi.data() + b * cells);
    }
    if (!exact) added(count, blocks, rows, scratch);
  }
}

void Shap::add_tree(const Term& term, bool exact, int blocks, const int32_t* rows, Scratch& scratch) const {
  const Tree& tree = prepared_.trees[term.tree];
  if (tree.places() == 0) return;
  if (tabled(term.tree) && (!exact || tables_->exact())) add_tables(term, exact, blocks, rows, scratch);
  else if (exact || tree.depth > float_depth_max) add_quadrature<double>(term, blocks, rows, scratch);
  else add_quadrature<float>(term, blocks, rows, scratch);
}

void Shap::explain_rows(const float* rows, int64_t count, int64_t begin, int blocks, bool exact, double* values,
                        double* scores) const {
  const Forest& forest = prepared_.forest;
  const int64_t cells = static_cast<int64_t>(prepared_.slots()) * block;
  Scratch scratch;
  int64_t valid[blocks_together];
  int32_t used[blocks_together];
  scratch.x.resize(static_cast<size_t>(blocks * cells));
  scratch.masks.resize(static_cast<size_t>(blocks * prepared_.mask_cells()));
  for (int b = 0; b < blocks; ++b) {
    valid[b] = std::min<int64_t>(block, count - begin - b * block);
    used[b] = static_cast<int32_t>((valid[b] + row_step - 1) / row_step * row_step);
    prepared_.columns(rows, count, begin + b * block, scratch.x.data() + b * cells);
  }
  scratch.phi.assign(static_cast<size_t>(blocks * cells), 0.0f);
  for (int32_t k = 0; k < forest.outputs; ++k) {
    scratch.sums.assign(static_cast<size_t>(blocks * cells), 0.0);
    scratch.scores.assign(static_cast<size_t>(blocks) * block, 0.0);
    for (const Term& term : terms_[k]) {
      for (int b = 0; b < blocks; ++b) {
        uint64_t* masks = scratch.masks.data() + b * prepared_.mask_cells();
        prepared_.decide(kernels_, term.tree, scratch.x.data() + b * cells, masks);
        predictor_.add(term.tree, term.output, masks, rows + (begin + b * block) * forest.features, valid[b],
                       scratch.scores.data() + b * block);
      }
      add_tree(term, exact, blocks, used, scratch);
    }
    added(additions_max, blocks, used, scratch);
    for (int b = 0; b < blocks; ++b) {
      for (int64_t c = 0; c < valid[b]; ++c) {
        const int64_t row = begin + b * block + c;
        double* out = values + row * forest.features * forest.outputs + k;
        const double* sums = scratch.sums.data() + b * cells + c;
        for (int32_t s = 0; s < prepared_.slots(); ++s)
          out[static_cast<int64_t>(prepared_.features[s]) * forest.outputs] = sums[static_cast<int64_t>(s) * block];
        scores[row * forest.outputs + k] = scratch.scores[b * block + c] + forest.base_values[k];
      }
    }
  }
}

void Shap::explain(const float* rows, int64_t count, bool exact, int threads, double* values, double* scores) const {
  const int64_t all = (count + block - 1) / block;
  const int64_t together = std::clamp<int64_t>(all / std::max(threads, 1), 1, blocks_together);
  in_parallel((all + together - 1) / together, threads, [&](int64_t i) {
    const int64_t first = i * together;
    explain_rows(rows, count, first * block, static_cast<int>(std::min(together, all - first)), exact, values, scores);
  });
}

}  // namespace penstock
