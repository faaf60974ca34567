// Runs a program over one payload.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "program.h"
#include "text.h"

namespace penstock {
namespace {

constexpr double nan_value = std::numeric_limits<double>::quiet_NaN();
constexpr int64_t text_length_max = int64_t{1} << 26;  // as in texts.py: both in the 53 bits of a double
constexpr int64_t text_at_max = int64_t{1} << 27;

template <typename T>
class Reader {
 public:
  // `begin`: of the payload, whose first `skip` bytes are passed over.
  Reader(const Program& program, const uint8_t* begin, int64_t skip, const uint8_t* end, T* row)
      : program_(program),
        begin_(begin),
        p_(begin + skip),
        end_(end),
        row_(row),
        items_left_(program.items_max + (end - begin - skip)) {}

  const uint8_t* place() const { return p_; }
  Status status() const { return status_; }
  int32_t node() const { return fault_ == nullptr ? 0 : static_cast<int32_t>(fault_ - program_.nodes.data()); }

  bool reached() const { return reached_; }

  bool read_root() { return read(program_.nodes[0], -1); }

 private:
  bool read_record(const Node& node) {
    for (int32_t i = 0; i < node.default_count; ++i) {
      const Default& d = program_.defaults[node.first_default + i];
      row_[d.column] = static_cast<T>(d.value);
    }
    const Node* child = program_.nodes.data() + node.first_child;
    for (const Node* last = child + node.child_count; child != last; ++child)
      if (!read(*child, child->column)) {
        if (fault_ == nullptr) fault_ = child;  // the innermost comes first
        return false;
      }
    return true;
  }

  bool read(const Node& node, int32_t column) {
    switch (node.kind) {
      case Kind::null:
        reached_ |= column >= 0;
        return true;  // the row is NaN already
      case Kind::boolean: {
        if (p_ == end_) return fail(Status::truncated);
        const uint8_t value = *p_++;
        if (value > 1) return fail(Status::corrupt);
        store(column, value);
        return true;
      }
      case Kind::int_: {
        int64_t value;
        if (!varint(value)) return false;
        if (value < INT32_MIN || value > INT32_MAX) return fail(Status::corrupt);
        store(column, static_cast<double>(value));
        return true;
      }
      case Kind::long_: {
        int64_t value;
        if (!varint(value)) return false;
        store(column, static_cast<double>(value));
        return true;
      }
      case Kind::float_:
        return numbers<float>(node.size, column);
      case Kind::double_:
        return numbers<double>(node.size, column);
      case Kind::bytes:
      case Kind::string:
        return text(node, column);
      case Kind::fixed:
        if (end_ - p_ < node.size) return fail(Status::truncated);
        p_ += node.size;
        return true;
      case Kind::enum_:
        return symbol(node, column);
      case Kind::array:
        return column >= 0 ? vector(node, column) : items(node);
      case Kind::map:
        return items(node);
      case Kind::union_: {
        int64_t branch;
        if (!varint(branch)) return false;
        if (branch < 0 || branch >= node.child_count) return fail(Status::corrupt);
        const Node& child = program_.nodes[node.first_child + branch];
        if (child.kind == Kind::null) {
          reached_ |= child.column >= 0;
          return true;
        }
        const int32_t to = column >= 0 ? column : child.column;
        if (child.kind == Kind::double_) return numbers<double>(child.size, to);
        return read(child, to);
      }
      case Kind::record:
        return read_record(node);
      case Kind::refuse:
        fault_ = &node;  // its place tells why
        return fail(Status::incompatible);
      case Kind::skip:
        return fail(Status::skipped);
      case Kind::decimal: {
        int64_t n;
        return length(n) && decimal(node, n, column);
      }
      case Kind::fixed_decimal:
        if (end_ - p_ < node.size) return fail(Status::truncated);
        return decimal(node, node.size, column);
    }
    return fail(Status::corrupt);
  }

  void store(int32_t column, double value) {
    if (column < 0) return;
    row_[column] = static_cast<T>(value);
    reached_ = true;
  }

  bool fail(Status status) {
    status_ = status;
    return false;
  }

  bool varint(int64_t& value) {
    if (p_ != end_ && *p_ < 0x80) {
      const uint64_t byte = *p_++;
      value = static_cast<int64_t>(byte >> 1) ^ -static_cast<int64_t>(byte & 1);
      return true;
    }
    uint64_t bits = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      if (p_ == end_) return fail(Status::truncated);
      const uint8_t byte = *p_++;
      if (shift == 63 && byte > 1) return fail(Status::corrupt);
      bits |= static_cast<uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) {
        value = static_cast<int64_t>(bits >> 1) ^ -static_cast<int64_t>(bits & 1);
        return true;
      }
    }
    return fail(Status::corrupt);
  }

  // Reads `count` numbers into columns side by side.
  template <typename N>
  bool numbers(int32_t count, int32_t column) {
    const int64_t there = (end_ - p_) / static_cast<int64_t>(sizeof(N));
    if (there < count) {
      p_ += there * static_cast<int64_t>(sizeof(N));
      return fail(Status::truncated);
    }
    if (count == 1) {  // most are alone
      N value;
      std::memcpy(&value, p_, sizeof(N));
      store(column, value);
    } else if (column >= 0) {
      reached_ = true;
      T* to = row_ + column;
      for (int32_t i = 0; i < count; ++i) {
        N value;
        std::memcpy(&value, p_ + i * sizeof(N), sizeof(N));
        to[i] = static_cast<T>(value);
      }
    }
    p_ += static_cast<int64_t>(count) * static_cast<int64_t>(sizeof(N));
    return true;
  }

  bool decimal(const Node& node, int64_t n, int32_t column) {
    const DecimalType& type = program_.decimals[node.table];
    double value;
    if (!decimal_value(p_, n, type.precision, type.scale, value)) return fail(Status::corrupt);
    p_ += n;
    store(column, value);
    return true;
  }

  bool length(int64_t& n) {
    if (!varint(n)) return false;
    if (n < 0) return fail(Status::corrupt);
    if (n > end_ - p_) return fail(Status::truncated);
    return true;
  }

  bool text(const Node& node, int32_t column) {
    int64_t n;
    if (!length(n)) return false;
    if (column >= 0 && node.table < 0) {
      if (node.kind == Kind::string && !is_utf8(p_, n)) return fail(Status::corrupt);
      const int64_t at = p_ - begin_;
      if (at >= text_at_max || n >= text_length_max) return fail(Status::limit);
      store(column, static_cast<double>(at * text_length_max + n));
    } else if (column >= 0) {
      const int32_t code = program_.tables[node.table].find({reinterpret_cast<const char*>(p_), static_cast<size_t>(n)});
      if (code < 0 && !is_utf8(p_, n)) return fail(Status::corrupt);
      store(column, code < 0 ? program_.unseen : code);
    } else if (node.kind == Kind::string && !is_utf8(p_, n)) {
      return fail(Status::corrupt);
    }
    p_ += n;
    return true;
  }

  bool symbol(const Node& node, int32_t column) {
    int64_t place;
    if (!varint(place)) return false;
    const auto& codes = program_.enums[node.table];
    if (place < 0 || place >= static_cast<int64_t>(codes.size())) return fail(Status::corrupt);
    if (std::isnan(codes[place])) {
      fault_ = &node;
      return fail(Status::incompatible);
    }
    store(column, codes[place]);
    return true;
  }

  // The header of an array's or map's block: its item count, 0 at the end.
  bool block(int64_t& count) {
    if (!varint(count)) return false;
    if (count < 0) {  // the block's size in bytes follows; it must at least be there
      if (count == INT64_MIN) return fail(Status::corrupt);
      count = -count;
      int64_t size;
      if (!length(size)) return false;
    }
    if (count > items_left_) return fail(Status::limit);
    items_left_ -= count;
    return true;
  }

  bool items(const Node& node) {
    const Node& item = program_.nodes[node.first_child];
    for (int64_t count;;) {
      if (!block(count)) return false;
      if (count == 0) return true;
      for (; count > 0; --count) {
        if (node.kind == Kind::map) {
          int64_t n;
          if (!length(n)) return false;
          if (!is_utf8(p_, n)) return fail(Status::corrupt);
          p_ += n;
        }
        if (!read(item, -1)) return false;
      }
    }
  }

  bool vector(const Node& node, int32_t column) {
    reached_ = true;
    const Node& item = program_.nodes[node.first_child];
    int64_t done = 0;
    for (int64_t count;;) {
      if (!block(count)) return false;
      if (count == 0) break;
      if (item.kind == Kind::double_ && count <= node.size - done) {
        if (!numbers<double>(static_cast<int32_t>(count), column + static_cast<int32_t>(done))) return false;
        done += count;
      } else if (item.kind == Kind::float_ && count <= node.size - done) {
        if (!numbers<float>(static_cast<int32_t>(count), column + static_cast<int32_t>(done))) return false;
        done += count;
      } else {
        for (; count > 0; --count, ++done)
          if (!read(item, done < node.size ? column + static_cast<int32_t>(done) : -1)) return false;
      }
    }
    return done == node.size ? true : fail(Status::wrong_length);
  }

  const Program& program_;
  const uint8_t* begin_;
  const uint8_t* p_;
  const uint8_t* end_;
  T* row_;
  int64_t items_left_;
  Status status_ = Status::ok;
  bool reached_ = false;  // something that has a column was written
  const Node* fault_ = nullptr;
};

}  // namespace

template <typename T>
Verdict read_payload(const Program& program, Payload payload, int64_t skip, bool refuse_empty, T* row) {
  std::fill_n(row, program.columns, static_cast<T>(nan_value));
  if (payload.length < skip) return {Status::truncated, payload.length, 0};
  const uint8_t* end = payload.data + payload.length;
  Reader<T> reader(program, payload.data, skip, end, row);
  Status status = reader.read_root() ? Status::ok : reader.status();
  if (status == Status::ok && reader.place() != end) status = Status::trailing;
  if (status == Status::ok && refuse_empty && !reader.reached()) status = Status::empty;
  if (status != Status::ok) std::fill_n(row, program.columns, static_cast<T>(nan_value));
  return {status, reader.place() - payload.data, reader.node()};
}

template Verdict read_payload<float>(const Program&, Payload, int64_t, bool, float*);
template Verdict read_payload<double>(const Program&, Payload, int64_t, bool, double*);

}  // namespace penstock
