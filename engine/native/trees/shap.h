// Exact SHAP values of a forest.
//
// Per tree one of two forms: pattern tables (the answers of a path's and a small subtree's tests number a row of summed SHAP
// values, so that explaining is looking up and adding), where they fit the byte budget; else Gauss-Legendre quadrature with
// ceil(D/2) nodes over the D different features of each leaf's path, which is exact for the polynomials at hand. Relative to
// the training data (each node's share of its parent) or to background rows (the mean over their answers).
//
// Values are float64; tables are float32 of values computed in float64. A row's bits do not depend on the batch or the threads.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "forest.h"
#include "kernels.h"
#include "predict.h"

namespace penstock {

// Allocates on cache lines.
template <typename T>
struct Aligned {
  using value_type = T;
  Aligned() = default;
  template <typename U>
  Aligned(const Aligned<U>&) {}
  T* allocate(size_t n) {
    void* p = std::aligned_alloc(64, (n * sizeof(T) + 63) / 64 * 64);
    if (p == nullptr) throw std::bad_alloc();
    return static_cast<T*>(p);
  }
  void deallocate(T* p, size_t) { std::free(p); }
  bool operator==(const Aligned&) const { return true; }
  bool operator!=(const Aligned&) const { return false; }
};
using AlignedFloats = std::vector<float, Aligned<float>>;

class Shap {
 public:
  // share (n,): of each node's parent's training data; empty with a background (b, F) given instead.
  Shap(Forest forest, std::vector<double> share, std::vector<float> background, int64_t table_bytes_max, int threads);

  // rows (n, F); values (n, F, K); scores (n, K): what base + values must add up to, by walking the trees.
  void explain(const float* rows, int64_t count, bool exact, int threads, double* values, double* scores) const;

  const std::vector<double>& expected() const { return expected_; }
  int64_t table_bytes() const { return static_cast<int64_t>(tables_.size() * sizeof(float)); }
  const std::vector<uint8_t>& plan() const { return tabled_; }  // by tree: 1 where it is tables
  const Forest& forest() const { return forest_; }
  uint64_t digest() const;

 private:
  struct TreePlan {
    Tree tree;
    int32_t first_test = 0;  // in tests_: one for each inner node
    bool walked = false;     // some set holds no codes: its answers are found one by one
    int32_t first_group = 0, group_count = 0;
    std::vector<double> z;          // by element; with a background unused
    // With a background: for each leaf the different answers of its rows, (patterns, elements), and how many gave them.
    std::vector<std::vector<uint8_t>> patterns;
    std::vector<std::vector<double>> weights;
  };

  void plan_tables(int64_t table_bytes_max);
  void fill_tables(const TreePlan& plan);
  void note_background(TreePlan& plan, const std::vector<float>& background);
  std::vector<double> leaf_shapley(const TreePlan& plan, size_t leaf, uint64_t satisfied) const;
  void explain_block(const float* rows, int64_t valid, const float* columns, bool exact, double* values, double* scores,
                     struct Scratch& scratch) const;
  template <typename T>
  void add_quadrature(const TreePlan& plan, const uint8_t* answers, struct Scratch& scratch, double* by_column) const;
  void add_background(const TreePlan& plan, const uint8_t* answers, double* by_column) const;

  Forest forest_;
  std::unique_ptr<Predictor> predictor_;
  std::unique_ptr<Tests> test_data_;
  const Kernels& kernels_;
  int32_t width_;
  bool from_background_;
  int64_t background_count_ = 0;
  std::vector<double> expected_;
  std::vector<TreePlan> plans_;
  std::vector<uint8_t> tabled_;
  std::vector<TestData> tests_;
  std::vector<Group> groups_;
  std::vector<int32_t> bit_places_;
  AlignedFloats tables_;
  std::vector<std::vector<double>> nodes_, node_weights_;  // Gauss-Legendre on [0, 1] by count
};

}  // namespace penstock
