#include "encode.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

namespace penstock {

constexpr size_t long_bytes_max = 10;
constexpr int64_t latest_ms = 253402300799999;  // the end of the year 9999: readers' calendars go no further

// Appends to memory that was sized for the longest messages there can be.
class Writer {
 public:
  Writer(int64_t count, size_t message_bytes_max) {
    messages_.bytes_.reset(new char[static_cast<size_t>(count) * message_bytes_max + 1]);
    messages_.ends_.reserve(static_cast<size_t>(count));
    p_ = messages_.bytes_.get();
  }
  void raw(const std::string& piece) {
    std::memcpy(p_, piece.data(), piece.size());
    p_ += piece.size();
  }
  void integer(int64_t value) { p_ = put(p_, value); }
  void number(double value) {
    std::memcpy(p_, &value, 8);
    p_ += 8;
  }
  void numbers(const double* values, int64_t count) {
    std::memcpy(p_, values, static_cast<size_t>(count) * 8);
    p_ += count * 8;
  }
  void end_message() { messages_.ends_.push_back(static_cast<size_t>(p_ - messages_.bytes_.get())); }
  Messages take() { return std::move(messages_); }

  static char* put(char* p, int64_t value) {
    uint64_t bits = (static_cast<uint64_t>(value) << 1) ^ static_cast<uint64_t>(value >> 63);
    for (; bits >= 0x80; bits >>= 7) *p++ = static_cast<char>((bits & 0x7F) | 0x80);
    *p++ = static_cast<char>(bits);
    return p;
  }

 private:
  Messages messages_;
  char* p_;
};

std::string avro_long(int64_t value) {
  char bytes[long_bytes_max];
  return {bytes, static_cast<size_t>(Writer::put(bytes, value) - bytes)};
}

std::string avro_string(const std::string& text) { return avro_long(static_cast<int64_t>(text.size())) + text; }

namespace {

size_t longest(const std::vector<std::string>& pieces) {
  size_t most = 0;
  for (const std::string& piece : pieces) most = std::max(most, piece.size());
  return most;
}

// A time as a timestamp; null before 1970, where a record has none, and beyond all calendars.
void put_time(Writer& out, int64_t ms) {
  if (ms < 0 || ms > latest_ms) {
    out.integer(0);
  } else {
    out.integer(1);
    out.integer(ms);
  }
}

void put_source(Writer& out, const std::string& before, const Sources& sources, int64_t i) {
  out.raw(before);
  out.integer(sources.partitions[i]);
  out.integer(sources.offsets[i]);
  out.integer(sources.timestamps_ms[i]);
  put_time(out, sources.timestamps_ms[i]);
}

void put_value(Writer& out, const std::vector<std::string>& table, double value) {
  if (std::isnan(value)) {
    out.integer(0);
  } else if (value >= 0 && value < static_cast<double>(table.size())) {
    out.integer(2);
    out.raw(table[static_cast<size_t>(value)]);
  } else {
    out.integer(1);
    out.number(value);
  }
}

// The same value, apart: a number or null, a text or null.
void put_number_and_text(Writer& out, const std::vector<std::string>& table, double value) {
  if (std::isnan(value)) {
    out.integer(0);
    out.integer(0);
  } else if (value >= 0 && value < static_cast<double>(table.size())) {
    out.integer(0);
    out.integer(1);
    out.raw(table[static_cast<size_t>(value)]);
  } else {
    out.integer(1);
    out.number(value);
    out.integer(0);
  }
}

// The features with the largest magnitudes first, `kept` of them; the others follow in any order.
void choose(const double* values, int64_t kept, std::vector<int32_t>& order, std::vector<double>& magnitudes) {
  for (size_t f = 0; f < magnitudes.size(); ++f)
    magnitudes[f] = std::isnan(values[f]) ? std::numeric_limits<double>::infinity() : std::fabs(values[f]);
  std::iota(order.begin(), order.end(), 0);
  std::partial_sort(order.begin(), order.begin() + kept, order.end(),
                    [&](int32_t a, int32_t b) { return magnitudes[a] != magnitudes[b] ? magnitudes[a] > magnitudes[b] : a < b; });
}

}  // namespace

Messages encode_predictions(const PredictionPieces& pieces, Sources sources, const std::vector<Output>& outputs,
                            const int64_t* labels, int64_t predicted_at_ms) {
  size_t bytes_max =
      pieces.before_source.size() + pieces.model.size() + longest(pieces.labels) + pieces.classes.size() + 12 * long_bytes_max;
  for (size_t k = 0; k < outputs.size(); ++k)
    bytes_max += pieces.outputs[k].size() + 2 * long_bytes_max + 8 * static_cast<size_t>(outputs[k].width);
  Writer out(sources.count, bytes_max);
  const std::string at = avro_long(predicted_at_ms);
  for (int64_t i = 0; i < sources.count; ++i) {
    put_source(out, pieces.before_source, sources, i);
    out.raw(pieces.model);
    if (!outputs.empty()) {
      out.integer(static_cast<int64_t>(outputs.size()));
      for (size_t k = 0; k < outputs.size(); ++k) {
        const Output& output = outputs[k];
        out.raw(pieces.outputs[k]);
        if (output.width) {
          out.integer(output.width);
          out.numbers(output.values + i * output.width, output.width);
        }
        out.integer(0);
      }
    }
    out.integer(0);
    if (labels == nullptr) {
      out.integer(0);
    } else {
      out.integer(1);
      out.raw(pieces.labels[labels[i]]);
    }
    out.raw(at);
    put_time(out, predicted_at_ms);
    out.raw(pieces.classes);
    if (labels == nullptr) {
      out.integer(0);
    } else {
      out.integer(1);
      out.integer(labels[i]);
    }
    out.integer(0);  // no fields are passed on: whoever does puts them in this place
    out.end_message();
  }
  return out.take();
}

Messages encode_explanations(const ExplanationPieces& pieces, Sources sources, const Explained& explained, int64_t top) {
  const int64_t features = static_cast<int64_t>(pieces.features.size());
  const int64_t kept = top == 0 ? features : std::min(top, features);
  size_t bytes_max = pieces.before_source.size() + pieces.model_method_background.size() + pieces.space.size() +
                     longest(pieces.classes) + 11 * long_bytes_max + 32;
  // a feature's name and attribution, its value with the branch, and the value again as number and text
  for (int64_t f = 0; f < features; ++f)
    bytes_max += pieces.features[f].size() + 8 + 2 * (2 + std::max<size_t>(8, longest(pieces.tables[f])));
  Writer out(sources.count, bytes_max);
  std::vector<int32_t> order(features);
  std::iota(order.begin(), order.end(), 0);
  std::vector<double> magnitudes(features);
  for (int64_t i = 0; i < sources.count; ++i) {
    const double* row = explained.matrix + i * features;
    const double* values = explained.values + i * features;
    put_source(out, pieces.before_source, sources, i);
    out.raw(pieces.model_method_background);
    out.integer(explained.output_index[i]);
    if (explained.output_index[i] < static_cast<int64_t>(pieces.classes.size())) {
      out.integer(1);
      out.raw(pieces.classes[static_cast<size_t>(explained.output_index[i])]);
    } else {
      out.integer(0);
    }
    out.raw(pieces.space);
    out.number(explained.base[i]);
    if (kept < features) {
      choose(values, kept, order, magnitudes);
      std::sort(order.begin() + kept, order.end());  // so that the sum of the others has one order
    }
    if (kept) out.integer(kept);
    for (int64_t k = 0; k < kept; ++k) {
      const int32_t f = order[k];
      out.raw(pieces.features[f]);
      put_value(out, pieces.tables[f], row[f]);
      out.number(values[f]);
      put_number_and_text(out, pieces.tables[f], row[f]);
    }
    out.integer(0);
    double rest = 0;
    for (int64_t k = kept; k < features; ++k) rest += values[order[k]];
    out.number(rest);
    out.number(explained.additivity_error[i]);
    if (explained.sampling_error == nullptr) {
      out.integer(0);
    } else {
      out.integer(1);
      out.number(explained.sampling_error[i]);
    }
    out.integer(0);  // as in a prediction
    out.end_message();
  }
  return out.take();
}

}  // namespace penstock
