// Raw scores of a forest: base values plus the values of the leaves reached, summed in float64 in the order of the trees,
// so that a row's bits are the same in any batch, on any number of threads and for any instruction set.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "prepared.h"

namespace penstock {

class Predictor {
 public:
  explicit Predictor(const Prepared& prepared);  // keeps a reference

  // rows (count, F) to scores (count, K).
  void predict(const float* rows, int64_t count, int threads, double* scores) const;

  // sums[c] += what the rows of a block get from this tree for its output-th output, from the tree's masks.
  void add(size_t tree, size_t output, const uint64_t* masks, const float* rows, int64_t valid, double* sums) const;

 private:
  struct Step {
    int32_t yes, no;  // where the rows that go there are noted
  };
  struct Route {
    bool coded;  // else its paths are walked
    bool small;  // its values are exact in float32 and few
    int32_t planes;
    int64_t first_step, first_source, first_end, first_value;
  };
  struct WalkNode {
    float threshold;
    uint32_t feature_missing;  // feature << 1 | missing_yes
    int32_t next[2];           // no, yes; a leaf's are itself
  };

  void plan(size_t tree);
  void number(size_t tree, const uint64_t* masks, uint8_t* codes) const;
  void add_coded(size_t tree, size_t output, const uint8_t* codes, double* sums) const;
  void walk(const int32_t* roots, const float* const* rows, int count, int32_t depth, int32_t* leaf_rows) const;
  void predict_walking(const float* row, double* scores) const;
  void predict_block(const float* rows, int64_t count, int64_t begin, double* scores) const;

  const Prepared& prepared_;
  const Kernels& kernels_;
  int64_t walked_rows_max_ = 8;  // so few rows are walked one after the other
  std::vector<Route> routes_;
  std::vector<uint8_t> plain_;  // by tree: no sets
  std::vector<Step> steps_;
  std::vector<int32_t> sources_, ends_;
  std::vector<double> values_;
  std::vector<float> small_values_;
  std::vector<WalkNode> nodes_;
};

// What predictions and explanations of one forest both stand on, made once.
struct Ready {
  explicit Ready(Forest forest) : prepared(std::move(forest)), predictor(prepared) {}

  Prepared prepared;
  Predictor predictor;
};

}  // namespace penstock
