"""What every other folder uses: parameters, errors, files, progress, threads."""
