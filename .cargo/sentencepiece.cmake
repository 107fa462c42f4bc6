# Only the static library is linked: the shared one would compile every source a second time.
set(SPM_ENABLE_SHARED OFF CACHE BOOL "" FORCE)
