// The device under test: nothing but the protocol.
#include "hil_serve/serve.h"

extern "C" void app_main(void) { hil::Serve(); }
