// Exact SHAP values of a forest, relative to its training data (how much of a node's data each child got) or to background rows.
//
// Per tree one of two forms. Tables of its leaves, where they fit the byte budget: at a cost that does not grow with the
// background. Else Gauss-Legendre quadrature with ceil(D / 2) points, D the most different features on a path, which is exact
// for the polynomials at hand: one walk over a tree's nodes explains a block of rows, against the training data or against each
// different answer of the background.
//
// Values are sums in float64; "exact" computes all of them so, else most trees compute their own part in float32.
// A row's bits depend neither on its batch nor on the number of threads.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "predict.h"
#include "prepared.h"
#include "quadrature.h"
#include "tables.h"

namespace penstock {

class Shap {
 public:
  // share (n,): of its parent's training data, or empty and background (b, F) given instead.
  // Throws std::invalid_argument where they do not fit the forest, or it is none.
  Shap(std::shared_ptr<const Ready> ready, std::span<const double> share, const std::vector<float>& background,
       int64_t table_bytes_max, int threads);

  // rows (count, F) to values (count, F, K), which must be zeros, and scores (count, K), the raw scores by the leaves reached.
  void explain(const float* rows, int64_t count, bool exact, int threads, double* values, double* scores) const;

  const Forest& forest() const { return prepared_.forest; }
  const std::vector<double>& expected() const { return expected_; }  // (K,) what values start from
  int64_t table_bytes() const { return tables_->bytes(); }
  bool tabled(size_t tree) const { return tables_->count(tree) > 0; }
  uint64_t digest() const { return tables_->digest(); }

 private:
  struct Scratch;
  struct Term {  // a tree and one of the outputs that it adds to
    int32_t tree, output;
  };
  struct Part {  // of the background: a row, and the share of rows that answer as it does
    int64_t row;
    double weight;
  };

  void expect_from_shares(std::span<const double> share);
  void expect_from_background(const std::vector<float>& background, int threads);
  void explain_rows(const float* rows, int64_t count, int64_t begin, int blocks, bool exact, double* values,
                    double* scores) const;
  void added(int32_t count, int blocks, const int32_t* rows, Scratch& scratch) const;
  void add_tree(const Term& term, bool exact, int blocks, const int32_t* rows, Scratch& scratch) const;
  void add_tables(const Term& term, bool exact, int blocks, const int32_t* rows, Scratch& scratch) const;
  template <typename T>
  void add_quadrature(const Term& term, int blocks, const int32_t* rows, Scratch& scratch) const;
  template <typename T>
  void walk(const Term& term, const Shares& shares, double weight, int blocks, const int32_t* rows, Scratch& scratch) const;
  void part_background(size_t tree, Scratch& scratch) const;

  std::shared_ptr<const Ready> ready_;
  const Prepared& prepared_;
  const Kernels& kernels_;
  const Predictor& predictor_;
  std::vector<double> expected_;
  std::vector<std::vector<PathNode>> nodes_;  // by tree
  std::vector<std::vector<Term>> terms_;      // by output
  std::map<int, GaussLegendre> rules_;        // by number of points
  std::vector<Shares> shares_;                // by tree; empty where relative to a background
  Background background_;
  std::unique_ptr<LeafTables> tables_;
};

}  // namespace penstock
