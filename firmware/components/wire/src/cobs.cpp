#include "wire/cobs.h"

#include <cstring>

namespace hil {

size_t CobsEncode(Bytes data, MutableBytes out) {
  size_t code_at = 0;  // where the code of the open block goes
  size_t write = 1;
  uint8_t code = 1;
  for (size_t read = 0; read < data.size(); ++read) {
    if (data[read] != 0) {
      out[write++] = data[read];
      ++code;
      if (code <= kCobsBlock) {
        continue;
      }
      if (read + 1 == data.size()) {  // a full block at the very end: nothing follows
        out[code_at] = code;
        return write;
      }
    }
    out[code_at] = code;
    code_at = write++;
    code = 1;
  }
  out[code_at] = code;
  return write;
}

bool CobsDecode(MutableBytes data, size_t* decoded_size) {
  const size_t size = data.size();
  size_t end = 0;
  while (end < size) {
    if (data[end] == 0) {
      return false;
    }
    end += data[end];
  }
  if (size == 0 || end != size) {
    return false;
  }
  size_t read = 0;
  size_t write = 0;
  while (read < size) {
    const uint8_t code = data[read];
    std::memmove(data.data() + write, data.data() + read + 1, code - 1u);
    write += code - 1u;
    read += code;
    if (code <= kCobsBlock && read < size) {
      data[write++] = 0;
    }
  }
  *decoded_size = write;
  return true;
}

void CobsDecodePrefix(Bytes data, MutableBytes out) {
  size_t next_code = data[0];
  for (size_t index = 0; index < out.size(); ++index) {
    const uint8_t byte = data[index + 1];
    const bool is_code = index + 1 == next_code;
    out[index] = is_code ? uint8_t{0} : byte;
    next_code += is_code ? byte : 0u;
  }
}

}  // namespace hil
