#include "check.h"

int main(int argc, char** argv) { return check::RunAll(argc > 1 ? argv[1] : ""); }
