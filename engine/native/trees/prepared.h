// A forest made ready for the kernels: its trees unfolded, its tests in the order of their places, and the columns they read.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <system_error>
#include <thread>
#include <vector>

#include "forest.h"
#include "kernels.h"

namespace penstock {

struct Prepared {
  static constexpr int masks_each = 3;  // for a place; see follow()

  explicit Prepared(Forest checked);  // throws what Forest::check() does
  Prepared(const Prepared&) = delete;
  Prepared& operator=(const Prepared&) = delete;

  Forest forest;
  std::vector<Tree> trees;
  std::vector<int32_t> features;              // tested by some tree, by slot
  std::vector<Test> tests;                    // tree by tree, by place
  std::vector<int64_t> first_test;            // (T + 1,)
  std::vector<std::vector<int32_t>> outputs;  // of each tree: those to which some leaf adds something
  int32_t places_max = 1, depth_most = 0;

  int32_t slots() const { return static_cast<int32_t>(features.size()); }
  int64_t mask_cells() const { return int64_t{places_max} * masks_each; }  // room for those of any tree

  // Rows [begin, begin + block) of (count, F), by column; past the end the last one again.
  void columns(const float* rows, int64_t count, int64_t begin, float* x) const;
  void decide(const Kernels& kernels, size_t tree, const float* x, uint64_t* masks) const {
    kernels.decide(tests.data() + first_test[tree], trees[tree].places(), sets_.data(), x, masks);
  }
  // After the masks of the tree's places, for each place the rows that go to no there, and to yes, and have passed all tests of
  // the same feature above on the way that leads here: masks (masks_each * places,).
  void follow(size_t tree, uint64_t* masks) const;

 private:
  std::vector<uint32_t> bits_;
  std::vector<Set> sets_;
};

// Calls work(i) for every i below items, on so many threads; what work() throws ends the whole.
template <typename Work>
void in_parallel(int64_t items, int threads, const Work& work) {
  if (threads > items) threads = static_cast<int>(items);
  if (threads <= 1) {
    for (int64_t i = 0; i < items; ++i) work(i);
    return;
  }
  std::atomic<int64_t> next{0};
  std::exception_ptr thrown;
  std::atomic<bool> failed{false};
  const auto labour = [&] {
    try {
      for (int64_t i; (i = next.fetch_add(1)) < items;) work(i);
    } catch (...) {
      if (!failed.exchange(true)) thrown = std::current_exception();
      next = items;
    }
  };
  std::vector<std::thread> crew;
  crew.reserve(threads - 1);
  try {
    for (int t = 1; t < threads; ++t) crew.emplace_back(labour);
  } catch (const std::system_error&) {
    // No more threads to be had: those there are do the work.
  }
  labour();
  for (auto& one : crew) one.join();
  if (thrown) std::rethrow_exception(thrown);
}

}  // namespace penstock
