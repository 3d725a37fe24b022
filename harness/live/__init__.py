"""The live page: what a store's studies do now, in a browser on this machine; `harness ui` starts it."""
