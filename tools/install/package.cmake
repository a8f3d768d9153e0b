# Debian packages, by `cpack -G DEB` in the build folder: kerf (the program with its pages and completion), libkerf0 (the
# shared library) and libkerf-dev (headers, archive, pkg-config and CMake files).
set(package_of_program kerf)
set(package_of_library libkerf${PROJECT_VERSION_MAJOR})
set(package_of_development libkerf-dev)
set(KERF_PACKAGER "The kerf authors" CACHE STRING "Maintainer field of the packages: name <address>")

set(CPACK_PACKAGE_NAME kerf)
set(CPACK_PACKAGE_CONTACT "${KERF_PACKAGER}")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_COMPONENTS_ALL program library development)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS ON)
set(summary_of_program "quantize and convert language models
 HuggingFace checkpoints go in, GGUF files of any precision come out, with the
 measured loss beside them.")
set(summary_of_library "quantize rows of weights and read GGUF files - shared library
 Rows of float32 to the tensor types of GGUF files and back, and GGUF files as
 metadata and tensors.")
set(summary_of_development "quantize rows of weights and read GGUF files - development files
 Headers, the archive, and what pkg-config and CMake need to find them.")
set(section_of_program utils)
set(section_of_library libs)
set(section_of_development libdevel)
foreach(component ${CPACK_COMPONENTS_ALL})
  string(TOUPPER ${component} name)
  set(CPACK_DEBIAN_${name}_PACKAGE_NAME ${package_of_${component}})
  set(CPACK_DEBIAN_${name}_PACKAGE_SECTION ${section_of_${component}})
  set(CPACK_COMPONENT_${name}_DESCRIPTION "${summary_of_${component}}")
  install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/${package_of_${component}} RENAME copyright
          COMPONENT ${component})
endforeach()
set(CPACK_DEBIAN_PROGRAM_PACKAGE_DEPENDS "libopenblas0") # loaded when needed, so its name stands in no program header
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_DEPENDS "${package_of_library} (= ${PROJECT_VERSION})")
include(CPack)
