"""Measurements that the README quotes; each module runs by itself."""
