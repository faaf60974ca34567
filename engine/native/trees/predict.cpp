#include "predict.h"

#include <algorithm>

#include "aligned.h"

namespace penstock {
namespace {

constexpr int planes_max = 8;  // codes are bytes
constexpr int small_codes = 64;
constexpr int abreast = 8;  // paths walked at a time, so that their loads overlap

int bits_for(int32_t count) {
  int bits = 0;
  while ((int64_t{1} << bits) < count) ++bits;
  return bits;
}

}  // namespace

Predictor::Predictor(const Prepared& prepared) : prepared_(prepared), kernels_(best_kernels()) {
  const Forest& forest = prepared_.forest;
  int64_t tests = 0, steps = 0;
  for (size_t t = 0; t < prepared_.trees.size(); ++t) {
    plan(t);
    if (!routes_[t].coded) continue;
    tests += prepared_.trees[t].places();
    steps += prepared_.trees[t].depth;
  }
  // A block costs the same for one row as for 64: a test of it as much as some one and a half steps of a walk.
  if (steps > 0) walked_rows_max_ = std::max<int64_t>(walked_rows_max_, tests * 3 / (steps * 2));
  nodes_.reserve(forest.feature.size());
  for (size_t i = 0; i < forest.feature.size(); ++i) {
    const auto self = static_cast<int32_t>(i);
    const uint32_t feature_missing = static_cast<uint32_t>(forest.feature[i]) << 1 | forest.missing_yes[i];
    if (forest.leaf[i] >= 0) nodes_.push_back({0, 0, {self, self}});
    else nodes_.push_back({forest.threshold[i], feature_missing, {forest.no[i], forest.yes[i]}});
  }
}

// Rows are noted at every node they reach; the bits of a leaf's code are unions of such notes.
void Predictor::plan(size_t t) {
  const Tree& tree = prepared_.trees[t];
  const Forest& forest = prepared_.forest;
  plain_.push_back(std::all_of(tree.node.begin(), tree.node.end(), [&](int32_t node) { return forest.set_index[node] < 0; }));
  const bool by_level = tree.depth <= planes_max;
  const int planes = by_level ? tree.depth : bits_for(tree.leaves());
  Route route{kernels_.wide && planes <= planes_max,
              false,
              planes,
              static_cast<int64_t>(steps_.size()),
              static_cast<int64_t>(sources_.size()),
              static_cast<int64_t>(ends_.size()),
              0};
  if (!route.coded) {
    routes_.push_back(route);
    return;
  }
  const int32_t places = tree.places();
  const auto note_of = [&](int32_t child) { return child >= 0 ? child : places + ~child; };
  std::vector<std::vector<int32_t>> sources(planes);
  std::vector<int32_t> code(tree.leaves(), 0);
  for (int32_t i = 0; i < places; ++i) {
    steps_.push_back({note_of(tree.yes[i]), note_of(tree.no[i])});
    if (by_level) sources[tree.level[i]].push_back(note_of(tree.no[i]));
  }
  if (by_level) {
    std::vector<int32_t> here(places, 0);  // code of the rows at a place so far
    for (int32_t i = 0; i < places; ++i) {
      if (tree.above[i] >= 0) here[i] = here[tree.above[i]] | (tree.side[i] ? 0 : 1 << tree.level[tree.above[i]]);
      if (tree.yes[i] < 0) code[~tree.yes[i]] = here[i];
      if (tree.no[i] < 0) code[~tree.no[i]] = here[i] | 1 << tree.level[i];
    }
  } else {
    for (int32_t l = 0; l < tree.leaves(); ++l) {
      code[l] = l;
      for (int b = 0; b < planes; ++b)
        if (l >> b & 1) sources[b].push_back(places + l);
    }
  }
  for (const auto& plane : sources) {
    sources_.insert(sources_.end(), plane.begin(), plane.end());
    ends_.push_back(static_cast<int32_t>(static_cast<int64_t>(sources_.size()) - route.first_source));
  }
  const auto& outputs = prepared_.outputs[t];
  const int64_t codes = std::max<int64_t>(int64_t{1} << planes, 1);
  const auto exact = [&](int32_t row) {
    const double* value = forest.value(row);
    return std::all_of(outputs.begin(), outputs.end(),
                       [&](int32_t k) { return static_cast<double>(static_cast<float>(value[k])) == value[k]; });
  };
  route.small = codes <= small_codes && std::all_of(tree.leaf_row.begin(), tree.leaf_row.end(), exact);
  const int64_t room = route.small ? small_codes : codes;
  route.first_value = static_cast<int64_t>(route.small ? small_values_.size() : values_.size());
  if (route.small) small_values_.resize(small_values_.size() + room * outputs.size(), 0.0f);
  else values_.resize(values_.size() + room * outputs.size(), 0.0);
  for (size_t o = 0; o < outputs.size(); ++o)
    for (int32_t l = 0; l < tree.leaves(); ++l) {
      const double value = forest.value(tree.leaf_row[l])[outputs[o]];
      const int64_t at = route.first_value + static_cast<int64_t>(o) * room + code[l];
      if (route.small) small_values_[at] = static_cast<float>(value);
      else values_[at] = value;
    }
  routes_.push_back(route);
}

void Predictor::number(size_t t, const uint64_t* masks, uint8_t* codes) const {
  const Route& route = routes_[t];
  const Step* steps = steps_.data() + route.first_step;
  uint64_t notes[1 << (planes_max + 1)];
  notes[0] = ~uint64_t{0};
  for (int32_t i = 0, places = prepared_.trees[t].places(); i < places; ++i) {
    const uint64_t here = notes[i], goes = masks[i];
    notes[steps[i].yes] = here & goes;
    notes[steps[i].no] = here & ~goes;
  }
  uint64_t planes[planes_max];
  const int32_t* source = sources_.data() + route.first_source;
  const int32_t* ends = ends_.data() + route.first_end;
  for (int32_t b = 0, s = 0; b < route.planes; ++b) {
    uint64_t all = 0;
    for (; s < ends[b]; ++s) all |= notes[source[s]];
    planes[b] = all;
  }
  kernels_.number(planes, route.planes, codes);
}

void Predictor::add_coded(size_t t, size_t output, const uint8_t* codes, double* sums) const {
  const Route& route = routes_[t];
  if (route.small) {
    kernels_.add_coded_small(small_values_.data() + route.first_value + static_cast<int64_t>(output) * small_codes, codes, sums);
  } else {
    kernels_.add_coded(values_.data() + route.first_value + (static_cast<int64_t>(output) << route.planes), codes, sums);
  }
}

// Where the rows end up, row i from root i; at most `abreast` at a time. Only numeric tests.
void Predictor::walk(const int32_t* roots, const float* const* rows, int count, int32_t depth, int32_t* leaf_rows) const {
  int32_t at[abreast];
  for (int i = 0; i < abreast; ++i) at[i] = roots[std::min(i, count - 1)];
  const float* row[abreast];
  for (int i = 0; i < abreast; ++i) row[i] = rows[std::min(i, count - 1)];
  for (int32_t step = 0; step < depth; ++step) {
    int32_t moved = 0;
    for (int i = 0; i < abreast; ++i) {
      const WalkNode& node = nodes_[at[i]];
      const float x = row[i][node.feature_missing >> 1];
      const bool yes = (x <= node.threshold) | ((x != x) & ((node.feature_missing & 1) != 0));
      const int32_t next = node.next[yes];
      moved |= next ^ at[i];
      at[i] = next;
    }
    if (moved == 0) break;
  }
  for (int i = 0; i < count; ++i) leaf_rows[i] = prepared_.forest.leaf[at[i]];
}

void Predictor::add(size_t t, size_t output, const uint64_t* masks, const float* rows, int64_t valid, double* sums) const {
  const Forest& forest = prepared_.forest;
  if (routes_[t].coded) {
    uint8_t codes[block];
    number(t, masks, codes);
    add_coded(t, output, codes, sums);
    return;
  }
  const int32_t k = prepared_.outputs[t][output];
  const int32_t root = forest.roots[t];
  for (int64_t c = 0; c < valid; c += abreast) {
    const int count = static_cast<int>(std::min<int64_t>(abreast, valid - c));
    int32_t roots[abreast], leaf_rows[abreast];
    const float* each[abreast];
    for (int i = 0; i < count; ++i) {
      roots[i] = root;
      each[i] = rows + (c + i) * forest.features;
    }
    if (plain_[t]) walk(roots, each, count, prepared_.trees[t].depth, leaf_rows);
    else
      for (int i = 0; i < count; ++i) leaf_rows[i] = forest.leaf_of(root, each[i]);
    for (int i = 0; i < count; ++i) sums[c + i] += forest.value(leaf_rows[i])[k];
  }
}

void Predictor::predict_walking(const float* row, double* scores) const {
  const Forest& forest = prepared_.forest;
  const size_t trees = prepared_.trees.size();
  const float* rows[abreast];
  std::fill_n(rows, abreast, row);
  for (size_t first = 0; first < trees; first += abreast) {
    const int count = static_cast<int>(std::min<size_t>(abreast, trees - first));
    int32_t leaf_rows[abreast];
    if (std::all_of(plain_.begin() + first, plain_.begin() + first + count, [](uint8_t p) { return p; })) {
      int32_t depth = 0;
      for (int i = 0; i < count; ++i) depth = std::max(depth, prepared_.trees[first + i].depth);
      walk(forest.roots.data() + first, rows, count, depth, leaf_rows);
    } else {
      for (int i = 0; i < count; ++i) leaf_rows[i] = forest.leaf_of(forest.roots[first + i], row);
    }
    for (int i = 0; i < count; ++i)
      for (int32_t k : prepared_.outputs[first + i]) scores[k] += forest.value(leaf_rows[i])[k];
  }
  for (int32_t k = 0; k < forest.outputs; ++k) scores[k] += forest.base_values[k];
}

void Predictor::predict_block(const float* rows, int64_t count, int64_t begin, double* scores) const {
  const Forest& forest = prepared_.forest;
  const int64_t valid = std::min<int64_t>(block, count - begin);
  AlignedVector<float> x(static_cast<size_t>(prepared_.slots()) * block);
  std::vector<uint64_t> masks(prepared_.places_max);
  std::vector<double> sums(static_cast<size_t>(forest.outputs) * block, 0.0);
  prepared_.columns(rows, count, begin, x.data());
  for (size_t t = 0; t < prepared_.trees.size(); ++t) {
    const auto& outputs = prepared_.outputs[t];
    if (!routes_[t].coded) {
      for (size_t o = 0; o < outputs.size(); ++o)
        add(t, o, nullptr, rows + begin * forest.features, valid, sums.data() + static_cast<int64_t>(outputs[o]) * block);
      continue;
    }
    uint8_t codes[block];
    prepared_.decide(kernels_, t, x.data(), masks.data());
    number(t, masks.data(), codes);
    for (size_t o = 0; o < outputs.size(); ++o) add_coded(t, o, codes, sums.data() + static_cast<int64_t>(outputs[o]) * block);
  }
  for (int64_t c = 0; c < valid; ++c)
    for (int32_t k = 0; k < forest.outputs; ++k)
      scores[(begin + c) * forest.outputs + k] = sums[static_cast<int64_t>(k) * block + c] + forest.base_values[k];
}

void Predictor::predict(const float* rows, int64_t count, int threads, double* scores) const {
  const Forest& forest = prepared_.forest;
  in_parallel((count + block - 1) / block, threads, [&](int64_t i) {
    const int64_t begin = i * block;
    if (count - begin > walked_rows_max_ && kernels_.wide) {
      predict_block(rows, count, begin, scores);
      return;
    }
    for (int64_t c = begin; c < std::min<int64_t>(begin + block, count); ++c) {
      std::fill_n(scores + c * forest.outputs, forest.outputs, 0.0);
      predict_walking(rows + c * forest.features, scores + c * forest.outputs);
    }
  });
}

}  // namespace penstock
