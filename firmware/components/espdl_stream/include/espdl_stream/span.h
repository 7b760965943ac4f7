// A pointer and a length. The little of C++20's std::span that the firmware needs, for C++17.
#ifndef ESPDL_STREAM_SPAN_H_
#define ESPDL_STREAM_SPAN_H_

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace espdl {

template <typename T>
class Span {
 public:
  constexpr Span() = default;
  constexpr Span(T* data, size_t size) : data_(data), size_(size) {}
  template <size_t kSize>
  constexpr Span(T (&array)[kSize]) : data_(array), size_(kSize) {}  // NOLINT: implicit on purpose
  // From a span of non-const elements.
  template <typename U, typename = std::enable_if_t<std::is_same_v<const U, T>>>
  constexpr Span(Span<U> other) : data_(other.data()), size_(other.size()) {}  // NOLINT

  constexpr T* data() const { return data_; }
  constexpr size_t size() const { return size_; }
  constexpr bool empty() const { return size_ == 0; }
  constexpr T& operator[](size_t index) const { return data_[index]; }
  constexpr T* begin() const { return data_; }
  constexpr T* end() const { return data_ + size_; }

  // The caller guarantees offset <= size() and size <= size() - offset.
  constexpr Span Sub(size_t offset, size_t size) const { return Span(data_ + offset, size); }
  constexpr Span From(size_t offset) const { return Span(data_ + offset, size_ - offset); }

 private:
  T* data_ = nullptr;
  size_t size_ = 0;
};

using Bytes = Span<const uint8_t>;
using MutableBytes = Span<uint8_t>;

}  // namespace espdl

#endif  // ESPDL_STREAM_SPAN_H_
