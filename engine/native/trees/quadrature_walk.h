// The SHAP values of one tree for a block of rows, in one walk over its nodes.
//
// At a point t of [0, 1], a feature that the row's own value fills with weight t, and the training data with 1 - t, sends the
// row to a child with weight w. On the way down H is the product of the weights above; on the way up G is the mean of the
// leaves below. The derivative of the tree's mean by the feature of node u is, summed over both children,
// H(u) * spread * (o - z) * G(child), and its integral over t is the Shapley value. Where the feature has been tested above,
// w and spread are those of the tests together, relative to the ones above; they are worked out beforehand (Constants).
#pragma once

#include <cstdint>

#include "kernels.h"
#include "simd.h"

namespace penstock::PENSTOCK_ISA {
namespace {

template <class S, int points>
struct Walk {
  using T = typename S::Number;
  using V = typename S::Vector;
  using M = typename S::Mask;
  static constexpr int64_t stride = Constants::head + Constants::each * points;
  static constexpr int64_t slot_size = static_cast<int64_t>(points) * block;

  const Quadrature<T>& work;

  // `slot` holds H on the way in and G on the way out; the children's slots follow at stack.
  void visit(int32_t at, T* slot, T* stack) const {
    const PathNode& node = work.nodes[at];
    const T* c = work.constants + at * stride;
    const uint64_t goes = work.masks[at];
    if (node.earlier < 0) {
      work.live[at] = ~uint64_t{0};
      node_of<false>(node, at, c, goes, ~uint64_t{0}, slot, stack);
    } else {
      const uint64_t before = work.masks[node.earlier];
      const uint64_t live = work.live[node.earlier] & (node.earlier_side ? before : ~before);
      work.live[at] = live;
      node_of<true>(node, at, c, goes, live, slot, stack);
    }
  }

  template <bool repeated>
  void node_of(const PathNode& node, int32_t, const T* c, uint64_t goes, uint64_t live, T* slot, T* stack) const {
    T* phi = work.phi + static_cast<int64_t>(node.slot) * block;
    if (node.yes < 0 && node.no < 0) {
      leaves<repeated>(c, goes, live, slot, phi);
      return;
    }
    T* yes = stack;
    T* no = stack + slot_size;
    split<repeated>(c, goes, live, slot, yes, no);
    descend(node.yes, (goes & live) != 0 || c[Constants::diff_yes_0] != 0, c[Constants::leaf_yes], yes, stack);
    descend(node.no, (~goes & live) != 0 || c[Constants::diff_no_1] != 0, c[Constants::leaf_no], no, stack);
    join<repeated>(c, goes, live, slot, yes, no, phi);
  }

  void descend(int32_t child, bool reached, T leaf, T* slot, T* stack) const {
    if (child >= 0 && reached) {
      visit(child, slot, stack + 2 * slot_size);
      return;
    }
    const V mean = S::all(child < 0 ? leaf : T{0});  // a child of weight 0 for every row: whatever is below counts nothing
    for (int q = 0; q < points; ++q)
      for (int r = 0; r < work.rows; r += S::width) S::store(slot + q * block + r, mean);
  }

  // A number for each quadrature point and for each of what a row can do at a test; kept in registers over the rows.
  struct Weights {
    V when_yes[points], when_no[points], lost;

    Weights(const T* c, int yes, int no, int otherwise) : lost(S::all(c[otherwise])) {
      for (int q = 0; q < points; ++q) {
        when_yes[q] = S::all(c[Constants::head + q * Constants::each + yes]);
        when_no[q] = S::all(c[Constants::head + q * Constants::each + no]);
      }
    }
    template <bool repeated>
    V at(int q, M goes, M live) const {
      const V known = S::choose(goes, when_yes[q], when_no[q]);
      return repeated ? S::choose(live, known, lost) : known;
    }
  };

  template <bool repeated>
  void split(const T* c, uint64_t goes_all, uint64_t live_all, const T* slot, T* yes, T* no) const {
    const Weights to_yes(c, Constants::yes_1, Constants::yes_0, Constants::lost_yes);
    const Weights to_no(c, Constants::no_1, Constants::no_0, Constants::lost_no);
    for (int r = 0, rows = work.rows; r < rows; r += S::width) {
      const M goes = S::mask(goes_all, r), live = S::mask(live_all, r);
      for (int q = 0; q < points; ++q) {
        const V h = S::load(slot + q * block + r);
        S::store(yes + q * block + r, S::mul(h, to_yes.template at<repeated>(q, goes, live)));
        S::store(no + q * block + r, S::mul(h, to_no.template at<repeated>(q, goes, live)));
      }
    }
  }

  template <bool repeated>
  void join(const T* c, uint64_t goes_all, uint64_t live_all, T* slot, const T* yes, const T* no, T* phi) const {
    const Weights to_yes(c, Constants::yes_1, Constants::yes_0, Constants::lost_yes);
    const Weights to_no(c, Constants::no_1, Constants::no_0, Constants::lost_no);
    const V yes_1 = S::all(c[Constants::diff_yes_1]), yes_0 = S::all(c[Constants::diff_yes_0]);
    const V no_1 = S::all(c[Constants::diff_no_1]), no_0 = S::all(c[Constants::diff_no_0]);
    V spread[points];
    for (int q = 0; q < points; ++q) spread[q] = S::all(c[Constants::head + q * Constants::each + Constants::spread]);
    for (int r = 0, rows = work.rows; r < rows; r += S::width) {
      const M goes = S::mask(goes_all, r), live = S::mask(live_all, r);
      V of_yes = S::all(0), of_no = S::all(0);
      for (int q = 0; q < points; ++q) {
        V h = S::load(slot + q * block + r);
        const V g_yes = S::load(yes + q * block + r), g_no = S::load(no + q * block + r);
        if (repeated) h = S::mul(h, spread[q]);
        of_yes = S::add(of_yes, S::mul(h, g_yes));
        of_no = S::add(of_no, S::mul(h, g_no));
        const V mean = S::mul(g_no, to_no.template at<repeated>(q, goes, live));
        S::store(slot + q * block + r, S::add(S::mul(g_yes, to_yes.template at<repeated>(q, goes, live)), mean));
      }
      V part = S::mul(of_no, S::choose(goes, no_1, no_0));
      part = S::add(S::mul(of_yes, S::choose(goes, yes_1, yes_0)), part);
      if (repeated) part = S::only(live, part);
      S::store(phi + r, S::add(S::load(phi + r), part));
    }
  }

  template <bool repeated>
  void leaves(const T* c, uint64_t goes_all, uint64_t live_all, T* slot, T* phi) const {
    const Weights mean(c, Constants::mean_1, Constants::mean_0, Constants::part_lost);
    const V part_1 = S::all(c[Constants::part_1]), part_0 = S::all(c[Constants::part_0]);
    V spread[points];
    for (int q = 0; q < points; ++q) spread[q] = S::all(c[Constants::head + q * Constants::each + Constants::spread]);
    for (int r = 0, rows = work.rows; r < rows; r += S::width) {
      const M goes = S::mask(goes_all, r), live = S::mask(live_all, r);
      V total = S::all(0);
      for (int q = 0; q < points; ++q) {
        const V h = S::load(slot + q * block + r);
        total = S::add(total, repeated ? S::mul(h, spread[q]) : h);
        S::store(slot + q * block + r, mean.template at<repeated>(q, goes, live));
      }
      V part = S::choose(goes, part_1, part_0);
      if (repeated) part = S::only(live, part);
      S::store(phi + r, S::add(S::load(phi + r), S::mul(part, total)));
    }
  }
};

template <class S, int points>
void walk(const Quadrature<typename S::Number>& work) {
  using T = typename S::Number;
  for (int q = 0; q < points; ++q)
    for (int c = 0; c < block; ++c) work.stack[q * block + c] = work.weights[q];
  const Walk<S, points> walking{work};
  T* root = work.stack;
  walking.visit(0, root, root + Walk<S, points>::slot_size);
}

template <class S>
void quadrature(const Quadrature<typename S::Number>& work) {
  switch (work.points) {
    case 1:
      walk<S, 1>(work);
      break;
    case 2:
      walk<S, 2>(work);
      break;
    case 3:
      walk<S, 3>(work);
      break;
    default:
      walk<S, 4>(work);
      break;
  }
}

}  // namespace
}  // namespace penstock::PENSTOCK_ISA
