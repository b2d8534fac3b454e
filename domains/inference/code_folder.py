"""Where workers keep the files of compiled code."""

CODE_FOLDER = "DEVICEOPS_CODE_FOLDER"
"""Environment variable: each worker that compiles makes a folder of its own there. Not set: among temporary files."""
