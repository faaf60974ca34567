#include <nanobind/nanobind.h>

NB_MODULE(_trees, m) { m.doc() = "placeholder until the kernel lands"; }
