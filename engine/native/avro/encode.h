// Predictions and explanations from columns to Avro payloads: what never changes is encoded once, the rest is appended.
//
// Shapes: N messages, F features. All arrays are C-contiguous and all indices within bounds: the caller (module.cpp) checks
// both. Nothing throws but std::bad_alloc.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace penstock {

// N messages behind each other.
class Messages {
 public:
  std::string_view at(size_t i) const { return {bytes_.get() + (i ? ends_[i - 1] : 0), ends_[i] - (i ? ends_[i - 1] : 0)}; }
  size_t count() const { return ends_.size(); }

 private:
  friend class Writer;
  std::unique_ptr<char[]> bytes_;
  std::vector<size_t> ends_;
};

std::string avro_string(const std::string& text);  // length and bytes
std::string avro_long(int64_t value);

struct Sources {
  const int32_t* partitions;
  const int64_t* offsets;
  const int64_t* timestamps_ms;
  int64_t count;
};

struct PredictionPieces {
  std::string before_source;         // framing, cluster, topic
  std::string model;                 // the topic's id, which ends the source; name, version, digest
  std::vector<std::string> outputs;  // map key of each output
  std::vector<std::string> labels;   // encoded class names
  std::string classes;               // all of them, as an array
};

struct Output {
  const double* values;  // (N, width)
  int64_t width;
};

// labels: (N,) places in pieces.labels, or null.
Messages encode_predictions(const PredictionPieces& pieces, Sources sources, const std::vector<Output>& outputs,
                            const int64_t* labels, int64_t predicted_at_ms);

struct ExplanationPieces {
  std::string before_source;
  std::string model_method_background;  // the topic's id before them, and all that stands before the output's index: its name too
  std::vector<std::string> classes;     // encoded names of what an output's index stands for; empty: no classes
  std::string space;
  std::vector<std::string> features;             // encoded names
  std::vector<std::vector<std::string>> tables;  // encoded category names by feature; empty: a number
};

struct Explained {
  const double* matrix;  // (N, F)
  const double* values;  // (N, F)
  const double* base;
  const int64_t* output_index;
  const double* additivity_error;
  const double* sampling_error;  // null: none
};

// `top` strongest by magnitude, NaN before all, ties in feature order; 0, or at least F: all, in the model's order.
Messages encode_explanations(const ExplanationPieces& pieces, Sources sources, const Explained& explained, int64_t top);

}  // namespace penstock
