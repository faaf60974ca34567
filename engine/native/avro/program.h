// A writer's Avro schema, resolved against the reader's, as a tree of nodes that turns payloads into matrix rows.
//
// Promises: every read is bounds-checked; a payload is consumed exactly or reported; a bad payload leaves its row NaN and
// touches no other. Work on a payload is linear in its bytes, but for at most `items_max` array items that take none: the
// program is a tree of bounded depth, checked when it is built, in which no record has members without bytes. Nothing
// throws while reading; a malformed program throws std::invalid_argument when it is built.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace penstock {

enum class Kind : uint8_t {
  null,
  boolean,
  int_,
  long_,
  float_,
  double_,
  bytes,
  string,
  fixed,
  enum_,
  array,
  map,
  union_,
  record,
  refuse,
  decimal,
  fixed_decimal,
  skip
};

enum class Status : uint8_t { ok, truncated, trailing, corrupt, limit, incompatible, wrong_length, skipped, empty };

struct Node {
  Kind kind = Kind::null;
  int32_t column = -1;      // where the value goes; -1: passed over. The first column of a vector, or of several numbers;
                            // of a null: which column it says is null
  int32_t size = 1;         // float, double: how many in a row; fixed: bytes; array into columns: how many items there must be
  int32_t table = -1;       // string, bytes: the category table; enum: the codes; decimal: precision and scale
                            // -1 of a string: its column says where it stands, first byte of the payload * 2^26 + bytes
  int32_t first_child = 0;  // place in Program::nodes; the children stand side by side
  int32_t child_count = 0;
  int32_t first_default = 0;  // record: columns that the writer does not know
  int32_t default_count = 0;
};

struct Default {
  int32_t column;
  double value;
};

struct DecimalType {
  int32_t precision;  // 1 to 38
  int32_t scale;      // 0 to precision
};

// Category names to codes: open addressing over the bytes of the names.
class Table {
 public:
  explicit Table(const std::vector<std::string>& names);  // throws std::invalid_argument when they are too many
  int32_t find(std::string_view name) const;              // the code, or -1

 private:
  struct Slot {
    int32_t begin = 0, length = -1, code = -1;
  };
  std::string bytes_;
  std::vector<Slot> slots_;
  uint64_t mask_;
};

struct Program {
  std::vector<Node> nodes;  // nodes[0] is the record, or a union of what it may be; a root of kind skip is passed over unread
  std::vector<Default> defaults;
  std::vector<Table> tables;
  std::vector<std::vector<double>> enums;  // code by the writer's symbol; NaN: the reader does not know the symbol
  std::vector<DecimalType> decimals;
  int32_t columns = 0;
  int64_t items_max = 0;  // array and map items in one payload, beyond one for each of its bytes
  double unseen = 0;      // the code of a category that its table does not hold

  void check() const;  // throws std::invalid_argument
};

struct Payload {
  const uint8_t* data;
  int64_t length;
};

struct Verdict {
  Status status;
  int64_t at;    // byte at which reading stopped
  int32_t node;  // what was being read; 0 when that is no single field
};

// Reads one payload, from byte `skip` on, into `row` (program.columns values of T, set to NaN first). With `refuse_empty` a
// record in which nothing that has a column is written, not even a null, is Status::empty; its row is then NaN or defaults.
template <typename T>
Verdict read_payload(const Program& program, Payload payload, int64_t skip, bool refuse_empty, T* row);

}  // namespace penstock
