"""The fused loss inside other trainers: TRL by one line, others by a function each. Nothing here is imported by fastgrpo itself."""
