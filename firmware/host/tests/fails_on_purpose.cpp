// The twin of every test: a check that does not hold must end in a failing exit code.
#include "check.h"

TEST(CheckNoticesAFalseCondition) { CHECK(1 > 2); }
TEST(CheckEqNoticesADifference) { CHECK_EQ(1, 2); }

int main(int, char**) {
  const int code = check::RunAll("");
  return code == 1 && check::Failures() == 2 ? 0 : 1;
}
