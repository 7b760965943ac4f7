pytest_plugins = ["espdl_hil.plugin"]
