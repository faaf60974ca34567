// SHAP values of a tree ensemble on a GPU: the answers to a group's tests make the number of a table row, and the row is added.
//
// NVRTC compiles this when a model is loaded, with ROWS: rows of a block, one a thread, a multiple of 32. The arrays are those
// of engine/explain/tree/fused_layout.py, which sees to it that every number in them is inside its array. A part is a run of
// groups that one block adds up for ROWS rows; parts are many, so that a batch of a few rows keeps the GPU busy too.
//
// A row gets the same bits in every batch: one thread adds all of a part to it, group after group, in float32, and another
// adds the parts in their order, in float64. No two threads ever add to the same number.

// A part's inputs lie in shared memory, ROWS + 1 apart: a warp writes inputs of one row at once and reads one input of 32 rows at
// once, and either way finds them in different banks. Its columns lie behind, ROWS apart, and each thread sees to its own row.
#define INPUT_STRIDE (ROWS + 1)
#define MISSING_YES 0x40000000  // of a source: a missing value stands below every threshold

// Answers to four tests, as bits. Missing compares false with everything, and so does the threshold NaN of a test that is not
// there.
static __device__ __forceinline__ unsigned answers(const float* inputs, float4 threshold, ushort4 asked) {
  return (inputs[asked.x] <= threshold.x ? 1u : 0u) | (inputs[asked.y] <= threshold.y ? 2u : 0u) |
         (inputs[asked.z] <= threshold.z ? 4u : 0u) | (inputs[asked.w] <= threshold.w ? 8u : 0u);
}

// The number of the group's table row: answer i is bit i. There are up to eight tests, in packs of four.
static __device__ __forceinline__ unsigned pattern(const float* inputs, const float4* __restrict__ thresholds,
                                                   const ushort4* __restrict__ asked, int4 group) {
  unsigned number = answers(inputs, __ldg(thresholds + group.x), __ldg(asked + group.x));
  if (group.z >> 16 > 1) number |= answers(inputs, __ldg(thresholds + group.x + 1), __ldg(asked + group.x + 1)) << 4;
  return number;
}

// Places differ, but for those where a table row was filled up to a multiple of four with zeros: all are read before one is
// written.
static __device__ __forceinline__ void add(float* totals, float4 value, ushort4 place) {
  const float x = totals[place.x] + value.x, y = totals[place.y] + value.y;
  const float z = totals[place.z] + value.z, w = totals[place.w] + value.w;
  totals[place.x] = x;
  totals[place.y] = y;
  totals[place.z] = z;
  totals[place.w] = w;
}

// sums (columns of all parts, stride): what the groups of part blockIdx.y add to each of its columns, for ROWS rows. `stride` is
// the number of rows, rounded up to whole blocks: what the rows are that nobody asked for, and what is said of them, is all one.
//   rows       (stride, features)
//   parts      (parts + 1): first group, first input, first column, unused
//   groups     first pack of its tests, first quad of its places, quads of a table row | packs << 16, first quad of its table
//   sources    the features that are the parts' inputs, with MISSING_YES or without
//   thresholds, asked    of each test; what is asked is one of the part's inputs, times INPUT_STRIDE
//   places     the part's columns, times ROWS, to which the numbers of a table row belong; the one after the last is nobody's
//   tables     rows of all groups; behind them, and behind places, there is a quad to spare
extern "C" __global__ void __launch_bounds__(ROWS)
    add_parts(const float* __restrict__ rows, int features, int stride, const int4* __restrict__ parts,
              const int4* __restrict__ groups, const int* __restrict__ sources, const float4* __restrict__ thresholds,
              const ushort4* __restrict__ asked, const ushort4* __restrict__ places, const float4* __restrict__ tables,
              float* __restrict__ sums) {
  extern __shared__ float shared[];
  const int4 part = parts[blockIdx.y], next = parts[blockIdx.y + 1];
  const int inputs = next.y - part.y, columns = next.z - part.z;
  const int first_row = blockIdx.x * ROWS;
  for (int i = threadIdx.x % 32; i < inputs; i += 32) {
    const int source = sources[part.y + i];
    const float* column = rows + (source & ~MISSING_YES);
#pragma unroll 16
    for (int r = threadIdx.x / 32; r < ROWS; r += ROWS / 32) {
      const float x = column[static_cast<long long>(first_row + r) * features];
      shared[i * INPUT_STRIDE + r] = (source & MISSING_YES) && x != x ? __int_as_float(0xff800000) : x;
    }
  }
  __syncthreads();

  const float* mine = shared + threadIdx.x;
  float* totals = shared + inputs * INPUT_STRIDE + threadIdx.x;
  for (int c = 0; c <= columns; ++c) totals[c * ROWS] = 0.0f;  // one more, for what rows were filled up with
  if (part.x < next.x) {
    const int last = next.x - 1;
    int4 group = __ldg(groups + part.x), coming = __ldg(groups + min(part.x + 1, last));
    unsigned number = pattern(mine, thresholds, asked, group);
    for (int g = part.x; g <= last; ++g) {
      const int quads = group.z & 0xffff;
      const float4* from = tables + (group.w + number * quads);
      const ushort4* place = places + group.y;
      // Two quads in any case, as nearly all need them. While they are on their way the next number is worked out.
      const float4 first = __ldg(from), second = __ldg(from + 1);
      const ushort4 first_place = __ldg(place), second_place = __ldg(place + 1);
      group = coming;
      coming = __ldg(groups + min(g + 2, last));
      number = pattern(mine, thresholds, asked, group);
      add(totals, first, first_place);
      if (quads > 1) add(totals, second, second_place);
      for (int q = 2; q < quads; ++q) add(totals, __ldg(from + q), __ldg(place + q));
    }
  }
  float* out = sums + static_cast<long long>(part.z) * stride + first_row + threadIdx.x;
  for (int c = 0; c < columns; ++c) out[static_cast<long long>(c) * stride] = totals[c * ROWS];
}

// values (stride, width): every column's sums over the parts that have it. Blocks of 32 rows by blockDim.y columns.
//   firsts     (width + 1) of a column's in found
//   found      which of the parts' columns they are
extern "C" __global__ void join_parts(const float* __restrict__ sums, int stride, int width, const int* __restrict__ firsts,
                                      const int* __restrict__ found, float* __restrict__ values) {
  const int column = blockIdx.x * blockDim.y + threadIdx.y, row = blockIdx.y * 32 + threadIdx.x;
  if (column >= width) return;
  double total = 0.0;
#pragma unroll 4
  for (int i = firsts[column]; i < firsts[column + 1]; ++i) total += sums[static_cast<long long>(found[i]) * stride + row];
  values[static_cast<long long>(row) * width + column] = static_cast<float>(total);
}
