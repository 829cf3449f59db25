"""The project of ludus/RepoRepair-v0, which its episodes begin with, but for one bug."""
