#include "encode.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace penstock {

void Buffer::long_(int64_t value) {
  uint64_t bits = (static_cast<uint64_t>(value) << 1) ^ static_cast<uint64_t>(value >> 63);
  char out[10];
  int n = 0;
  while (bits >= 0x80) {
    out[n++] = static_cast<char>((bits & 0x7F) | 0x80);
    bits >>= 7;
  }
  out[n++] = static_cast<char>(bits);
  bytes_.append(out, n);
}

std::string avro_long(int64_t value) {
  Buffer buffer;
  buffer.long_(value);
  return buffer.bytes();
}

std::string avro_string(const std::string& text) { return avro_long(static_cast<int64_t>(text.size())) + text; }

namespace {

void put_source(Buffer& out, const std::string& before, const Sources& sources, int64_t i) {
  out.raw(before);
  out.long_(sources.partitions[i]);
  out.long_(sources.offsets[i]);
  out.long_(sources.timestamps_ms[i]);
}

}  // namespace

Buffer encode_predictions(const PredictionPieces& pieces, Sources sources, const std::vector<Output>& outputs,
                          const int64_t* labels, int64_t predicted_at_ms) {
  Buffer out;
  size_t numbers = 0;
  for (const Output& output : outputs) numbers += output.width;
  out.reserve(sources.count * (pieces.before_source.size() + pieces.model.size() + 64 + 9 * numbers), sources.count);
  const std::string at = avro_long(predicted_at_ms);
  for (int64_t i = 0; i < sources.count; ++i) {
    put_source(out, pieces.before_source, sources, i);
    out.raw(pieces.model);
    if (!outputs.empty()) {
      out.long_(static_cast<int64_t>(outputs.size()));
      for (size_t k = 0; k < outputs.size(); ++k) {
        out.raw(pieces.outputs[k]);
        if (outputs[k].width) {
          out.long_(outputs[k].width);
          for (int64_t j = 0; j < outputs[k].width; ++j) out.double_(outputs[k].values[i * outputs[k].width + j]);
        }
        out.long_(0);
      }
    }
    out.long_(0);
    if (labels == nullptr) {
      out.long_(0);
    } else {
      out.long_(1);
      out.raw(pieces.labels[labels[i]]);
    }
    out.raw(at);
    out.end_message();
  }
  return out;
}

Buffer encode_explanations(const ExplanationPieces& pieces, Sources sources, const Explained& explained, int64_t top) {
  const int64_t features = static_cast<int64_t>(pieces.features.size());
  const int64_t kept = top == 0 ? features : std::min(top, features);
  Buffer out;
  size_t names = 0;
  for (const std::string& name : pieces.features) names += name.size() + 24;
  out.reserve(sources.count * (pieces.before_source.size() + pieces.model_method_background.size() + names + 96), sources.count);
  std::vector<int32_t> order(features);
  for (int64_t i = 0; i < sources.count; ++i) {
    const double* row = explained.matrix + i * features;
    const double* values = explained.values + i * features;
    put_source(out, pieces.before_source, sources, i);
    out.raw(pieces.model_method_background);
    out.long_(explained.output_index[i]);
    out.raw(pieces.space);
    out.double_(explained.base[i]);
    std::iota(order.begin(), order.end(), 0);
    if (kept < features)
      std::stable_sort(order.begin(), order.end(),
                       [&](int32_t a, int32_t b) { return std::fabs(values[a]) > std::fabs(values[b]); });
    if (kept) {
      out.long_(kept);
      for (int64_t k = 0; k < kept; ++k) {
        const int32_t f = order[k];
        out.raw(pieces.features[f]);
        const auto& table = pieces.tables[f];
        if (std::isnan(row[f])) {
          out.long_(0);
        } else if (!table.empty() && row[f] >= 0 && row[f] < static_cast<double>(table.size())) {
          out.long_(2);
          out.raw(table[static_cast<size_t>(row[f])]);
        } else {
          out.long_(1);
          out.double_(row[f]);
        }
        out.double_(values[f]);
      }
    }
    out.long_(0);
    double rest = 0;
    for (int64_t k = kept; k < features; ++k) rest += values[order[k]];
    out.double_(rest);
    out.double_(explained.additivity_error[i]);
    if (explained.sampling_error == nullptr) {
      out.long_(0);
    } else {
      out.long_(1);
      out.double_(explained.sampling_error[i]);
    }
    out.end_message();
  }
  return out;
}

}  // namespace penstock
