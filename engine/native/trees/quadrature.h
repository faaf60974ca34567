// What the quadrature kernel needs for a tree: its nodes, and its constants from how the training data, or one row of
// background, parts at each of them.
#pragma once

#include <cstdint>
#include <vector>

#include "prepared.h"

namespace penstock {

// Points and weights of Gauss-Legendre quadrature on [0, 1], exact for polynomials of degree 2 * count - 1.
struct GaussLegendre {
  explicit GaussLegendre(int count);
  std::vector<double> points, weights;
};

std::vector<PathNode> path_nodes(const Prepared& prepared, size_t tree);

// How much of what comes to a place goes on to yes and to no, and how much of it passed all earlier tests of its feature.
struct Shares {
  std::vector<double> yes, no, before;  // by place
  void follow(const Tree& tree);        // works out `before` from `yes` and `no`
};

// (places, Constants::head + Constants::each * points) numbers for values of one output; `out` is resized to fit.
template <typename T>
void fill_constants(const Forest& forest, const Tree& tree, int32_t output, const Shares& shares, const double* points, int count,
                    std::vector<T>& out);

// The mean of the tree's values of one output, weighed by the shares.
double mean_of(const Forest& forest, const Tree& tree, int32_t output, const Shares& shares);

}  // namespace penstock
