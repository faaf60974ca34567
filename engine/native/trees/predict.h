// Raw scores of a forest: base plus the leaves' values, summed in float64 in the order of the trees.
#pragma once

#include <cstdint>
#include <vector>

#include "forest.h"
#include "kernels.h"

namespace penstock {

// Category sets as bitmaps, where members are small whole numbers, as codes are.
class Tests {
 public:
  explicit Tests(const Forest& forest);
  TestData of(int32_t node) const;
  bool fits(int32_t node) const { return forest_.set_index[node] < 0 || bitmap_[forest_.set_index[node]] >= 0; }
  const uint32_t* bitmaps() const { return words_.data(); }

 private:
  const Forest& forest_;
  std::vector<uint32_t> words_;
  std::vector<int32_t> bitmap_, bits_;  // by set; bitmap -1: its members are no codes
};

// Copies rows [begin, begin + block) of (n, F) into columns, repeating the last row.
void transpose(const float* rows, int64_t count, int64_t begin, int32_t features, float* columns);

class Predictor {
 public:
  explicit Predictor(const Forest& forest);
  // Adds to sums[c * K + k] for the rows of a block; `columns` as transpose() leaves them, `rows` as given.
  void add_block(const float* columns, const float* rows, int64_t valid, double* sums) const;
  void add_row(const float* row, double* sums) const;

 private:
  struct Chunk {
    int32_t first_test, test_count;
    int64_t first_value;  // (33, K) in values_: row 32 is zeros
  };
  struct Plan {
    int32_t first_chunk, chunk_count;  // none: the tree is walked
    int32_t root;
  };
  void cut(const Tree& tree, int32_t first, int32_t last);

  const Forest& forest_;
  Tests tests_;
  const Kernels& kernels_;
  std::vector<Plan> plans_;
  std::vector<Chunk> chunks_;
  std::vector<ChunkTest> chunk_tests_;
  std::vector<double> values_;
};

}  // namespace penstock
