"""What pyproject.toml cannot say: the kernels' package lies in kernels/, a folder that is no package itself."""

from setuptools import find_packages, setup

setup(
    packages=find_packages(include=["fastgrpo", "fastgrpo.*"]) + find_packages("kernels"),
    package_dir={"fastgrpo_kernels": "kernels/fastgrpo_kernels"},
    package_data={"fastgrpo": ["recipes/*.yaml", "recipes/pretrain/*.yaml", "experiments/*.yaml", "report/assets/*"]},
)
