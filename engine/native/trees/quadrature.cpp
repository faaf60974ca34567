#include "quadrature.h"

#include <cmath>

namespace penstock {

GaussLegendre::GaussLegendre(int count) : points(count), weights(count) {
  // Newton's iteration on the Legendre polynomial, from an estimate that leads each start to its own root.
  for (int i = 0; i < count; ++i) {
    long double x = std::cos(3.14159265358979323846L * (i + 0.75L) / (count + 0.5L)), slope = 1;
    for (int round = 0; round < 100; ++round) {
      long double before = 1, at = x;
      for (int n = 2; n <= count; ++n) {
        const long double next = ((2 * n - 1) * x * at - (n - 1) * before) / n;
        before = at;
        at = next;
      }
      slope = count * (x * at - before) / (x * x - 1);
      const long double step = at / slope;
      x -= step;
      if (std::fabs(step) < 1e-18L) break;
    }
    points[i] = static_cast<double>((1 - x) / 2);
    weights[i] = static_cast<double>(1 / ((1 - x * x) * slope * slope));
  }
}

std::vector<PathNode> path_nodes(const Prepared& prepared, size_t t) {
  const Tree& tree = prepared.trees[t];
  const Test* tests = prepared.tests.data() + prepared.first_test[t];
  std::vector<PathNode> nodes(tree.places());
  for (int32_t i = 0; i < tree.places(); ++i)
    nodes[i] = {tests[i].slot, tree.yes[i], tree.no[i], tree.earlier[i], tree.earlier_side[i] != 0};
  return nodes;
}

void Shares::follow(const Tree& tree) {
  before.assign(tree.places(), 1.0);
  for (int32_t i = 0; i < tree.places(); ++i) {
    const int32_t earlier = tree.earlier[i];
    if (earlier >= 0) before[i] = before[earlier] * (tree.earlier_side[i] ? yes : no)[earlier];
  }
}

template <typename T>
void fill_constants(const Forest& forest, const Tree& tree, int32_t output, const Shares& shares, const double* points, int count,
                    std::vector<T>& out) {
  const int64_t stride = Constants::head + Constants::each * count;
  out.resize(static_cast<size_t>(tree.places() * stride));
  const auto value = [&](int32_t child) { return child < 0 ? forest.value(tree.leaf_row[~child])[output] : 0.0; };
  for (int32_t i = 0; i < tree.places(); ++i) {
    T* c = out.data() + i * stride;
    const double zy = shares.yes[i], zn = shares.no[i], before = shares.before[i];
    const double vy = value(tree.yes[i]), vn = value(tree.no[i]);
    const bool leaves = tree.yes[i] < 0 && tree.no[i] < 0;
    if (leaves) {
      c[Constants::part_1] = static_cast<T>((1 - zy) * vy - zn * vn);
      c[Constants::part_0] = static_cast<T>((1 - zn) * vn - zy * vy);
      c[Constants::part_lost] = static_cast<T>(zy * vy + zn * vn);
    } else {
      c[Constants::diff_yes_1] = static_cast<T>(1 - zy);
      c[Constants::diff_yes_0] = static_cast<T>(-zy);
      c[Constants::diff_no_1] = static_cast<T>(-zn);
      c[Constants::diff_no_0] = static_cast<T>(1 - zn);
      c[Constants::leaf_yes] = static_cast<T>(vy);
      c[Constants::leaf_no] = static_cast<T>(vn);
      c[Constants::lost_yes] = static_cast<T>(zy);
      c[Constants::lost_no] = static_cast<T>(zn);
    }
    for (int q = 0; q < count; ++q) {
      T* each = c + Constants::head + q * Constants::each;
      const double t = points[q], rest = before * (1 - t), all = rest + t;
      const double scale = tree.earlier[i] < 0 ? 1.0 : 1.0 / all;  // where the feature is new, before is 1 and so is all
      const double yes_0 = zy * rest * scale, no_1 = zn * rest * scale, filled = t * scale;
      const double yes_1 = yes_0 + filled, no_0 = no_1 + filled;
      if (leaves) {
        each[Constants::mean_1] = static_cast<T>(yes_1 * vy + no_1 * vn);
        each[Constants::mean_0] = static_cast<T>(yes_0 * vy + no_0 * vn);
      } else {
        each[Constants::yes_1] = static_cast<T>(yes_1);
        each[Constants::yes_0] = static_cast<T>(yes_0);
        each[Constants::no_1] = static_cast<T>(no_1);
        each[Constants::no_0] = static_cast<T>(no_0);
      }
      each[Constants::spread] = static_cast<T>(before * scale * scale);
    }
  }
}

template void fill_constants<float>(const Forest&, const Tree&, int32_t, const Shares&, const double*, int, std::vector<float>&);
template void fill_constants<double>(const Forest&, const Tree&, int32_t, const Shares&, const double*, int,
                                     std::vector<double>&);

double mean_of(const Forest& forest, const Tree& tree, int32_t output, const Shares& shares) {
  if (tree.places() == 0) return forest.value(tree.leaf_row[0])[output];
  std::vector<double> weight(tree.places(), 1.0);
  double mean = 0;
  for (int32_t i = 0; i < tree.places(); ++i) {
    if (tree.above[i] >= 0) weight[i] = weight[tree.above[i]] * (tree.side[i] ? shares.yes : shares.no)[tree.above[i]];
    if (tree.yes[i] < 0) mean += weight[i] * shares.yes[i] * forest.value(tree.leaf_row[~tree.yes[i]])[output];
    if (tree.no[i] < 0) mean += weight[i] * shares.no[i] * forest.value(tree.leaf_row[~tree.no[i]])[output];
  }
  return mean;
}

}  // namespace penstock
