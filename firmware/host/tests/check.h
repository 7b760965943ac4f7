// A test runner in one header: TEST(Name) { CHECK(...); CHECK_EQ(observed, expected); }
#ifndef TESTS_CHECK_H_
#define TESTS_CHECK_H_

#include <functional>
#include <iostream>
#include <sstream>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace check {

struct Test {
  const char* name;
  std::function<void()> run;
};

inline std::vector<Test>& Tests() {
  static std::vector<Test> tests;
  return tests;
}

inline int& Failures() {
  static int failures = 0;
  return failures;
}

struct Registrar {
  Registrar(const char* name, std::function<void()> run) {
    Tests().push_back({name, std::move(run)});
  }
};

template <typename T>
void Print(std::ostream& out, const T& value) {
  if constexpr (std::is_enum_v<T>) {
    out << static_cast<long long>(value);
  } else if constexpr (std::is_integral_v<T>) {
    out << +value;
  } else {
    out << value;
  }
}

inline void Fail(const char* file, int line, const std::string& what) {
  ++Failures();
  std::cout << file << ":" << line << ": " << what << "\n";
}

template <typename A, typename B>
void Equal(const A& observed, const B& expected, const char* text, const char* file, int line) {
  if (!(observed == expected)) {
    std::ostringstream what;
    what << text << ": observed ";
    Print(what, observed);
    what << ", expected ";
    Print(what, expected);
    Fail(file, line, what.str());
  }
}

// Runs the tests whose name contains `filter`; the number of failures decides the exit code.
inline int RunAll(const std::string& filter) {
  int count = 0;
  for (const Test& test : Tests()) {
    if (std::string(test.name).find(filter) == std::string::npos) {
      continue;
    }
    const int before = Failures();
    test.run();
    ++count;
    std::cout << (Failures() == before ? "ok      " : "FAILED  ") << test.name << "\n";
  }
  std::cout << count << " tests, " << Failures() << " failures\n";
  return Failures() == 0 && count != 0 ? 0 : 1;
}

}  // namespace check

#define TEST(name)                                                  \
  static void Test##name();                                         \
  static const check::Registrar registrar##name(#name, Test##name); \
  static void Test##name()

#define CHECK(condition)                           \
  do {                                             \
    if (!(condition)) {                            \
      check::Fail(__FILE__, __LINE__, #condition); \
    }                                              \
  } while (false)

#define CHECK_EQ(observed, expected) \
  check::Equal((observed), (expected), #observed, __FILE__, __LINE__)

#endif  // TESTS_CHECK_H_
