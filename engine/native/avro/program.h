// A writer's Avro schema, resolved against the reader's, as a tree of nodes that turns payloads into matrix rows.
//
// Promises: every read is bounds-checked; a payload is consumed exactly or reported; a bad payload leaves its row NaN and
// touches no other; work per payload is bounded by its bytes and `items_max`. Depth is bounded by the tree, which has no
// cycles (the caller refuses recursive schemas). Nothing throws while reading; a malformed program throws
// std::invalid_argument when it is built.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace penstock {

enum class Kind : uint8_t {
  null, boolean, int_, long_, float_, double_, bytes, string, fixed, enum_, array, map, union_, record, refuse
};

enum class Status : uint8_t { ok, truncated, trailing, corrupt, limit, incompatible, wrong_length, unlike_header };

struct Node {
  Kind kind = Kind::null;
  int32_t column = -1;       // where the value goes; -1: passed over. A vector's first column
  int32_t size = 0;          // fixed: bytes; array into columns: how many items there must be
  int32_t table = -1;        // string: its category table; enum: its codes
  int32_t first_child = 0;   // place in Program::children
  int32_t child_count = 0;
  int32_t first_default = 0; // record: columns that the writer does not know
  int32_t default_count = 0;
};

struct Default {
  int32_t column;
  double value;
};

// Category names to codes: open addressing over the bytes of the names.
class Table {
 public:
  explicit Table(const std::vector<std::string>& names);
  int32_t find(std::string_view name) const;  // the code, or -1

 private:
  struct Slot {
    int32_t begin = 0, length = -1, code = -1;
  };
  std::string bytes_;
  std::vector<Slot> slots_;
  uint32_t mask_;
};

struct Program {
  std::vector<Node> nodes;  // nodes[0] is the record
  std::vector<int32_t> children;
  std::vector<Default> defaults;
  std::vector<Table> tables;
  std::vector<std::vector<double>> enums;  // code by the writer's symbol; NaN: the reader does not know the symbol
  int32_t columns = 0;
  int64_t items_max = 0;  // array and map items in one payload, beyond one for each of its bytes

  void check() const;  // throws std::invalid_argument
};

struct Payload {
  const uint8_t* data;
  int64_t length;
};

struct Verdict {
  Status status;
  int32_t at;  // byte at which reading stopped
};

// Reads one payload, from byte `skip` on, into `row` (program.columns values of T, set to NaN first).
template <typename T>
Verdict read_payload(const Program& program, Payload payload, int64_t skip, T* row);

}  // namespace penstock
