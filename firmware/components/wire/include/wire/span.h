// The spans of the streaming class, under the core's name.
#ifndef WIRE_SPAN_H_
#define WIRE_SPAN_H_

#include "espdl_stream/span.h"

namespace hil {

using espdl::Bytes;
using espdl::MutableBytes;
using espdl::Span;

}  // namespace hil

#endif  // WIRE_SPAN_H_
