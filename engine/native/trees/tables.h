// SHAP values worked out beforehand: for each pair of leaves, by what the tests on their path answer.
//
// With the answers of the row fixed, a feature's share of a leaf is a sum over what the background answers, each weighed by how
// much of it answers so. Nothing else matters, so it is a number in a table, however large the background was; where it is the
// training data as the nodes' shares remember it, features answer independently of each other. Values are float32 of sums in
// float64; relative to a background what float32 leaves of them is kept too, for exact sums.
#pragma once

#include <cstdint>
#include <vector>

#include "aligned.h"
#include "prepared.h"
#include "quadrature.h"

namespace penstock {

struct Background {
  int64_t rows = 0;
  std::vector<std::vector<float>> columns;  // by block of rows, as Prepared::columns() gives them
};

class LeafTables {
 public:
  // Tables for the trees whose paths test at most bits_max different features, the smallest first, while they fit: from the
  // trees' shares, or, where there are none, from the background.
  LeafTables(const Prepared& prepared, const std::vector<Shares>& shares, const Background& background, int32_t bits_max,
             int64_t bytes_max, int threads);

  int32_t count(size_t tree) const { return count_[tree]; }  // 0: the tree has none
  int64_t bytes() const { return bytes_; }
  uint64_t digest() const;

  // Work for the kernels: values of the output-th output, from `count` of the tree's tables. Exact only where exact().
  Lookup look_up(size_t tree, size_t output, int32_t from, int32_t count, const uint64_t* masks, int32_t rows) const;
  bool exact() const { return floats_each_ == 2; }

 private:
  int64_t size_of(size_t tree, int32_t bits_max) const;
  int32_t place_of(const LeafTable& table) const { return bits_[table.first_bit + table.bits - 1]; }
  void plan(size_t tree, int64_t& floats);
  void fill(size_t tree, const LeafTable& table, const Shares* shares, const double* by_code);
  std::vector<double> counted(size_t tree, const Background& background) const;
  std::vector<double> shared(size_t tree, const LeafTable& table, const Shares& shares, bool side) const;

  const Prepared& prepared_;
  const int32_t floats_each_;  // for a value
  int64_t bytes_ = 0;
  std::vector<int64_t> first_;  // of each tree's tables
  std::vector<int32_t> count_;
  std::vector<LeafTable> tables_;
  std::vector<int32_t> bits_, slots_;
  AlignedVector<float> values_, rests_;
};

}  // namespace penstock
